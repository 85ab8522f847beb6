"""`.caia`: answers by name, is not listed, is right in size, and takes no harm."""

import errno
import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.conftest import MountFactory
from tests.support.mount import Mount, git
from tests.support.requirements import require_tool
from tests.support.waiting import wait_until

pytestmark = pytest.mark.mount

FILES = ("stats.json", "health.json", "metrics", "config.json", "version")


def output(*args: str | Path) -> bytes:
    return subprocess.run(list(map(str, args)), capture_output=True, check=True).stdout


def test_caia_answers_by_name_and_is_not_listed(shared_caia: Mount):
    assert ".caia" not in os.listdir(shared_caia.path)
    assert (shared_caia / ".caia").is_dir()
    assert set(FILES) <= set(os.listdir(shared_caia / ".caia"))


@pytest.mark.parametrize("name", FILES)
def test_size_is_what_is_read(shared_caia: Mount, name: str):
    with (shared_caia / ".caia" / name).open("rb") as handle:
        content = handle.read()

        assert content
        assert content.endswith(b"\n")
        assert os.fstat(handle.fileno()).st_size == len(content)


@pytest.mark.parametrize("name", FILES)
def test_cat_cp_and_tail_see_the_whole_file(shared_caia: Mount, name: str, tmp_path: Path):
    path = shared_caia / ".caia" / name

    output("cp", path, tmp_path / name)

    assert output("cat", path).endswith(b"\n")
    assert (tmp_path / name).read_bytes().endswith(b"\n")
    assert output("tail", "-c", "1", path) == b"\n"
    assert output("tail", "-n", "1", path).endswith(b"\n")
    if name.endswith(".json"):
        json.loads((tmp_path / name).read_bytes())


def test_tail_of_a_constant_file_is_its_tail(shared_caia: Mount):
    path = shared_caia / ".caia" / "config.json"

    assert output("tail", "-c", "40", path) == output("cat", path)[-40:]


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith(".json")])
def test_jq_reads_it(shared_caia: Mount, name: str):
    require_tool("jq")

    assert output("jq", "-e", ".", shared_caia / ".caia" / name)


def test_stats_are_never_stale(shared_caia: Mount, room: Path):
    # Whatever is counted, some figure moves when something was done and the file is read again.
    before = shared_caia.virtual("stats.json")
    (room / "doc").write_text("something new")

    assert shared_caia.virtual("stats.json") != before


def test_health_of_a_mount_without_govc_is_ok_on_git_only(shared_caia: Mount):
    health = shared_caia.wait_health("ok")

    assert health["mode"] == "git only"
    assert health["reasons"] == []


def test_stats_have_the_names_that_users_know(shared_caia: Mount):
    stats = shared_caia.stats()["storage_stats"]

    assert stats["config"]["primary_backend"] in {"govc", "git"}
    assert isinstance(stats["config"]["enable_fallback"], bool)
    assert stats["config"]["operation_timeout"] == 5_000_000_000
    assert stats["govc"]["govc_integrated"] is False
    assert stats["govc"]["implementation"] == "none"
    assert stats["govc"]["documents_in_memory"] == 0


def test_metrics_are_prometheus_text(shared_caia: Mount):
    lines = shared_caia.virtual("metrics").decode().splitlines()

    assert any(line.startswith("# TYPE caiafs_") for line in lines)
    samples = [line for line in lines if line and not line.startswith("#")]
    assert samples
    for line in samples:
        float(line.rpartition(" ")[2])


def test_both_processes_tell_their_tasks(shared_caia: Mount):
    wait_until(
        lambda: shared_caia.stats()["store_process"]["tasks"] > 1, "the store process reports"
    )

    assert shared_caia.stats()["mount"]["tasks"] > 1


def test_config_masks_secrets_and_names_origins(mount_caia: MountFactory):
    token = "very-secret-token"

    caia = mount_caia(env={"GOVC_AUTH_TOKEN": token})

    assert token not in caia.virtual("config.json").decode()
    assert "GOVC_AUTH_TOKEN" in caia.virtual("config.json").decode()
    assert token.encode() not in Path(f"/proc/{caia.pid}/cmdline").read_bytes()
    assert token not in caia.log()


@pytest.mark.parametrize(
    "harm",
    [
        lambda folder: (folder / "stats.json").write_text("mine"),
        lambda folder: (folder / "stats.json").unlink(),
        lambda folder: (folder / "new").write_text("mine"),
        lambda folder: (folder / "new").mkdir(),
        lambda folder: (folder / "version").rename(folder / "other"),
        lambda folder: (folder / "version").rename(folder.parent / "stolen"),
        lambda folder: folder.rmdir(),
        lambda folder: folder.rename(folder.parent / "other"),
        lambda folder: folder.mkdir(),
        lambda folder: (folder / "version").chmod(0o777),
        lambda folder: (folder / "version").hardlink_to(folder / "stats.json"),
    ],
)
def test_nothing_in_caia_can_be_changed(shared_caia: Mount, harm):
    before = shared_caia.virtual("version")

    with pytest.raises(OSError) as caught:
        harm(shared_caia / ".caia")

    allowed = {errno.EPERM, errno.EACCES, errno.EROFS, errno.EXDEV, errno.EEXIST}
    assert caught.value.errno in allowed
    assert shared_caia.virtual("version") == before


def test_document_does_not_take_the_name_of_caia(shared_caia: Mount, room: Path):
    (room / "doc").write_text("text")

    with pytest.raises(OSError) as caught:
        (room / "doc").rename(shared_caia / ".caia")

    assert caught.value.errno in {errno.EPERM, errno.EISDIR, errno.EEXIST}


def test_caia_below_the_root_is_an_ordinary_name(room: Path):
    (room / ".caia").write_text("mine")

    assert (room / ".caia").read_text() == "mine"


def test_unknown_command_is_refused_by_write(shared_caia: Mount):
    handle = os.open(shared_caia / ".caia" / "control", os.O_WRONLY)

    with pytest.raises(OSError) as caught:
        os.write(handle, b"no such command\n")

    os.close(handle)
    assert caught.value.errno == errno.EINVAL


def test_sync_by_control_returns_when_git_has_everything(shared_caia: Mount, room: Path):
    (room / "doc").write_text("text")

    (shared_caia / ".caia" / "control").write_text("sync\n")

    shown = shared_caia.git("cat-file", "blob", f"HEAD:{room.name}/doc")
    assert shown == "text"


def test_visible_caia_is_listed(mount_caia: MountFactory):
    caia = mount_caia(options=["caia_dir=visible"])

    assert ".caia" in os.listdir(caia.path)


def test_stored_document_named_like_caia_is_shadowed_and_named_in_health(
    mount_caia: MountFactory, tmp_path: Path
):
    work = tmp_path / "work"
    git("init", "-q", work, cwd=tmp_path)
    (work / ".caia").mkdir()
    (work / ".caia" / "stats.json").write_text("a document")
    (work / "doc").write_text("text")
    git("add", "-A", cwd=work)
    git("commit", "-qm", "Start", cwd=work)
    git("clone", "-q", "--bare", work, tmp_path / "bare", cwd=tmp_path)

    caia = mount_caia(repo=tmp_path / "bare")

    assert "storage_stats" in caia.stats()
    assert any(".caia" in str(reason) for reason in caia.health()["reasons"])
    (caia / "doc").write_text("new")
    caia.sync()
    assert caia.git("cat-file", "blob", "HEAD:.caia/stats.json") == "a document"
