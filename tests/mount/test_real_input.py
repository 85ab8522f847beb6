"""The main job on real input: a thousand real documents, worked on through the mount, agree in mount, clone and govc.

The documents are this system's own, from /usr/share/doc: text, HTML, Markdown, gzip, images, source.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import MountFactory, govc_environment
from tests.mount.agreement import check_agreement, document_paths
from tests.support.govc_server import GovcServer, GovcServers
from tests.support.mount import Mount
from tests.support.requirements import require

pytestmark = [pytest.mark.mount, pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(400)]

WANTED = 1100
LARGEST = 300_000
INSTALLED = Path("/usr/share/doc")


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of at least 1,000 real documents."""
    target = tmp_path_factory.mktemp("real") / "documents"
    taken = 0
    for package in sorted(INSTALLED.iterdir()):
        if taken >= WANTED:
            break
        if package.is_dir() and not package.is_symlink():
            taken += copy_some(package, target / package.name, at_most=40)
    require(taken >= 1000, f"only {taken} documents below {INSTALLED}; install some packages")
    return target


def copy_some(source: Path, target: Path, *, at_most: int) -> int:
    """Copy the first documents of a package with their modes and times; return how many."""
    paths = [p for p in sorted(source.rglob("*")) if p.is_file() or p.is_symlink()]
    small = [p for p in paths if p.is_symlink() or p.stat().st_size <= LARGEST][:at_most]
    for path in small:
        place = target / path.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, place, follow_symlinks=False)
    return len(small)


def copy_in(documents: Path, caia: Mount) -> None:
    subprocess.run(["cp", "-a", f"{documents}/.", caia.path], check=True)


def work_on(root: Path) -> None:
    """Edit, rename and delete a part of the documents, in the ways that people and programs do."""
    paths = [
        path
        for path in document_paths(root)
        if not os.path.islink(os.fsencode(root / os.fsdecode(path)))
    ]
    for number, name in enumerate(paths):
        path = root / os.fsdecode(name)
        if number % 10 == 0:
            with path.open("ab") as handle:
                handle.write(b"one more line\n")
        elif number % 10 == 1:
            subprocess.run(["sed", "-i", "1s/^/edited /", path], check=True)
        elif number % 10 == 2:
            path.rename(path.with_name("renamed-" + path.name))
        elif number % 10 == 3:
            path.unlink()
        elif number % 10 == 4:
            path.write_bytes(path.read_bytes()[::2])
    packages = sorted(p for p in root.iterdir() if p.is_dir())
    packages[0].rename(root / "moved package")
    packages[1].rename(packages[2] / "below another")
    shutil.rmtree(packages[3])
    # Git has no empty directories: those that the deletions left would be all that differs.
    subprocess.run(["find", root, "-mindepth", "1", "-type", "d", "-empty", "-delete"], check=True)
    (root / "new folder").mkdir()
    (root / "new folder" / "empty").touch()


def test_real_documents_agree_in_mount_and_clone(caia: Mount, documents: Path, tmp_path: Path):
    copy_in(documents, caia)
    work_on(caia.path)

    check_agreement(caia, tmp_path)
    assert caia.git("fsck", "--strict", "--no-dangling") == ""
    caia.wait_health("ok")


@pytest.mark.govc
@pytest.mark.parametrize("architecture", ["new", "old"])
def test_real_documents_agree_in_mount_clone_and_govc(
    mount_caia: MountFactory,
    govc_servers: GovcServers,
    documents: Path,
    tmp_path: Path,
    architecture: str,
):
    govc = govc_servers(architecture=architecture)
    caia = mount_caia(env=govc_environment(govc))
    copy_in(documents, caia)
    work_on(caia.path)

    check_agreement(caia, tmp_path, govc)
    assert caia.stats()["storage_stats"]["govc"]["govc_integrated"] is True


@pytest.mark.govc
def test_real_documents_agree_after_govc_was_killed_in_the_middle_and_came_back_empty(
    caia_on_govc: Mount, govc: GovcServer, documents: Path, tmp_path: Path
):
    caia_on_govc.expect_log(r"govc")
    copy_in(documents, caia_on_govc)
    govc.stop()
    work_on(caia_on_govc.path)
    assert caia_on_govc.wait_health("degraded")["reasons"]

    govc.restart()

    check_agreement(caia_on_govc, tmp_path, govc)
    caia_on_govc.wait_health("ok")
    assert caia_on_govc.git("fsck", "--strict", "--no-dangling") == ""


@pytest.mark.govc
def test_real_documents_agree_when_govc_is_restarted_while_they_are_copied(
    caia_on_govc: Mount, govc: GovcServer, documents: Path, tmp_path: Path
):
    caia_on_govc.expect_log(r"govc")
    copying = subprocess.Popen(["cp", "-a", f"{documents}/.", caia_on_govc.path])
    for _ in range(3):
        govc.restart()
    assert copying.wait(120) == 0

    check_agreement(caia_on_govc, tmp_path, govc)
