"""Proofs of caiafs-semantics(7): several machines on one git remote."""

import os
from pathlib import Path

import pytest

from tests.conftest import MountFactory
from tests.support.git_remote import SharedRepository
from tests.support.mount import Mount, run_caiafs
from tests.support.promises import promise
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.mount, pytest.mark.slow]

FAST = "git_remote_interval=300ms"


@pytest.fixture
def shared(tmp_path: Path) -> SharedRepository:
    """Return an empty bare repository."""
    return SharedRepository(tmp_path / "shared.git")


def machine(
    mount_caia: MountFactory, shared: SharedRepository, name: str, option: str = FAST
) -> Mount:
    return mount_caia(name, env={"CAIA_GIT_REMOTE": str(shared.path)}, options=(option,))


def shown(caia: Mount) -> dict[str, str]:
    return {name: (caia / name).read_text() for name in sorted(os.listdir(caia.path))}


def come_level(shared: SharedRepository, *mounts: Mount) -> dict[str, str]:
    """Wait until all show the same and are at one commit; return what they show."""

    def level() -> bool:
        heads = {shared.head(), *((mount.commits() or [None])[-1] for mount in mounts)}
        return (
            None not in heads
            and len(heads) == 1
            and all(shown(mount) == shown(mounts[0]) for mount in mounts)
        )

    wait_until(level, "all mounts are at the commit of the remote", timeout_s=60)
    return shown(mounts[0])


@promise(
    "O14",
    "Mounts of several repositories with one git_remote come to the same documents; every version that was"
    " closed stays in the history, and what does not merge is kept as in O3.",
)
def test_three_machines_come_to_the_same_documents(
    mount_caia: MountFactory, shared: SharedRepository
):
    mounts = [machine(mount_caia, shared, f"machine{number}") for number in range(3)]
    (mounts[0] / "together").write_text("base\n")
    come_level(shared, *mounts)

    for number, caia in enumerate(mounts):
        (caia / f"alone-{number}").write_text(f"by {number}\n")
        (caia / "together").write_text(f"by {number}\n")
    found = come_level(shared, *mounts)

    versions = {f"by {number}\n" for number in range(3)}
    names = {f"alone-{number}" for number in range(3)}
    assert names < set(found)
    beside = {name: text for name, text in found.items() if name.startswith("together")}
    assert set(beside.values()) == versions
    assert all(name == "together" or ".conflict-" in name for name in beside)
    history = shared.git("rev-list", "--objects", "--no-object-names", "main").split()
    for text in ("base\n", *versions):
        assert shared.git("hash-object", "--stdin", data=text.encode()).strip() in history


@promise(
    "O15",
    "Nothing is ever forced on a git remote: what its branch held stays an ancestor of what caiafs pushes"
    " there, and with nothing new nothing is committed or pushed.",
)
def test_pushes_are_forward_only_and_end(mount_caia: MountFactory, shared: SharedRepository):
    heads = shared.path / "heads"
    shared.hook("post-receive", f'while read old new ref; do echo "$old $new" >> {heads}; done')
    shared.git("config", "receive.denyNonFastForwards", "false")
    mounts = [machine(mount_caia, shared, f"machine{number}") for number in range(2)]
    for turn in range(4):
        for number, caia in enumerate(mounts):
            (caia / f"doc-{number}").write_text(f"turn {turn}\n")
        (mounts[turn % 2] / "together").write_text(f"turn {turn}\n")
    come_level(shared, *mounts)
    pushed = heads.read_text().splitlines()
    looks = [looked(caia) for caia in mounts]

    wait_until(
        lambda: all(looked(caia) > before + 5 for caia, before in zip(mounts, looks, strict=True)),
        "each mount looks at the remote several times more",
    )

    assert heads.read_text().splitlines() == pushed
    for old, new in (line.split() for line in pushed):
        if set(old) != {"0"}:
            shared.git("merge-base", "--is-ancestor", old, new)


def looked(caia: Mount) -> int:
    operations = caia.stats()["storage_stats"]["git_remote"]["operations"]
    return int(operations.get("look", {"count": 0})["count"])


@promise(
    "O16",
    "A git remote that is away or refuses keeps no save waiting; health is degraded and says why, and the"
    " remote gets what it lacks when it takes it again.",
)
def test_a_remote_that_is_away_or_refuses_keeps_no_save_waiting(
    mount_caia: MountFactory, shared: SharedRepository
):
    caia = machine(mount_caia, shared, "machine")
    caia.expect_log("git remote")
    (caia / "before").write_text("text\n")
    come_level(shared, caia)

    away = shared.path.rename(shared.path.with_name("away.git"))
    (caia / "while-away").write_text("text\n")
    wait_until(lambda: len(caia.commits()) == 2, "the save is a commit")
    wait_until(lambda: "there is no repository" in str(caia.health()["reasons"]), "health says why")
    assert caia.health()["status"] == "degraded"

    away.rename(shared.path)
    hook = shared.hook("pre-receive", "echo 'Closed on Sundays.'; exit 1")
    (caia / "while-refused").write_text("text\n")
    wait_until(lambda: len(caia.commits()) == 3, "the save is a commit")
    wait_until(lambda: "Closed on Sundays." in str(caia.health()["reasons"]), "health says why")

    hook.unlink()
    assert run_caiafs("sync", caia.path).returncode == 0
    assert set(come_level(shared, caia)) == {"before", "while-away", "while-refused"}
    caia.wait_health("ok")


@promise(
    "O17",
    "A repository and a git remote that both hold documents and never met are merged after caiafs adopt, and"
    " not before.",
)
def test_strangers_are_merged_after_adopt_only(mount_caia: MountFactory, shared: SharedRepository):
    theirs = shared.commit({"theirs": "theirs\n", "both": "theirs\n"})
    caia = mount_caia("machine")
    caia.expect_log("git remote")
    (caia / "ours").write_text("ours\n")
    (caia / "both").write_text("ours\n")
    caia.sync()
    caia.env = {"CAIA_GIT_REMOTE": str(shared.path)}
    caia.options = (FAST,)
    caia.remount()

    wait_until(lambda: "never met" in str(caia.health()["reasons"]), "health says so")
    (caia / "more").write_text("ours\n")
    done = run_caiafs("sync", caia.path, "--timeout", "3s")
    assert done.returncode == 3
    assert "git remote" in done.stdout
    assert shared.head() == theirs
    assert "theirs" not in shown(caia)

    adopted = run_caiafs("adopt", caia.path)

    assert adopted.returncode == 0, adopted.stderr
    found = come_level(shared, caia)
    assert found.pop("both") == "ours\n"
    [copy] = [name for name in found if name.startswith("both.conflict-")]
    assert found.pop(copy) == "theirs\n"
    assert found == {"more": "ours\n", "ours": "ours\n", "theirs": "theirs\n"}
    caia.wait_health("ok")


@promise("O18", "Unmounting and caiafs sync push to the git remote what it lacks.")
def test_sync_and_unmount_push(mount_caia: MountFactory, shared: SharedRepository):
    caia = machine(mount_caia, shared, "machine", "git_remote_interval=1h")
    (caia / "one").write_text("text\n")
    done = run_caiafs("sync", caia.path)
    assert done.returncode == 0, done.stdout
    assert set(shared.tree()) == {b"one"}

    (caia / "two").write_text("text\n")
    assert caia.unmount() == 0

    assert set(shared.tree()) == {b"one", b"two"}
