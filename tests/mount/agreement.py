"""Whether the mount, a clone of the repository and the real govc server hold the same, byte for byte."""

import os
import subprocess
from pathlib import Path

from tests.support.fresh_reader import read_govc
from tests.support.govc_server import GovcServer
from tests.support.mount import Mount


def document_paths(root: Path) -> list[bytes]:
    """Return the paths of all documents below `root`, git's own directory left out."""
    top = os.fsencode(root)
    found = []
    for folder, folders, names in os.walk(top):
        if folder == top and b".git" in folders:
            folders.remove(b".git")
        links = [name for name in folders if os.path.islink(folder + b"/" + name)]
        found += [os.path.relpath(folder + b"/" + name, top) for name in names + links]
    return sorted(found)


def differences(left: Path, right: Path) -> str:
    """Return what `diff -r` says of two trees; symbolic links are compared as such."""
    done = subprocess.run(
        ["diff", "-r", "--no-dereference", "--exclude=.git", left, right],
        capture_output=True,
        check=False,
    )
    return (done.stdout + done.stderr).decode(errors="replace")


def check_agreement(caia: Mount, scratch: Path, govc: GovcServer | None = None) -> None:
    """Check that a clone, and what a new process reads from `govc`, are what the mount shows."""
    caia.sync(timeout_s=110)
    paths = document_paths(caia.path)
    clone = caia.clone(scratch / "clone")
    assert differences(caia.path, clone) == ""
    assert document_paths(clone) == paths
    if govc is not None:
        read = read_govc(govc.url, paths, scratch / "from-govc")
        assert differences(caia.path, read) == ""
