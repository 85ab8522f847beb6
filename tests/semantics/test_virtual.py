"""Proofs of caiafs-semantics(7): the directory .caia."""

import errno
import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.support.mount import Mount
from tests.support.promises import promise

pytestmark = [pytest.mark.mount, pytest.mark.slow]


@promise(
    "V1",
    ".caia in the root of the mount answers by name and is not listed, so that no recursive tool"
    " enters it.",
)
def test_caia_is_not_listed(shared_caia: Mount, room: Path):
    (room / "doc").write_text("text")

    found = subprocess.run(
        ["find", shared_caia.path, "-name", ".caia*"], capture_output=True, text=True, check=True
    )

    assert found.stdout == ""
    assert (shared_caia / ".caia" / "stats.json").is_file()


@promise(
    "V2",
    "Each opening of a file in .caia shows the state at that moment, whole and with its right size.",
)
def test_each_opening_shows_the_state_of_the_moment(shared_caia: Mount, room: Path):
    shown = []
    for i in range(5):
        (room / f"doc-{i}").write_text("text")
        with (shared_caia / ".caia" / "stats.json").open("rb") as handle:
            size = os.fstat(handle.fileno()).st_size
            content = handle.read()
            handle.seek(0)

            assert len(content) == size
            assert handle.read() == content
        shown.append(content)
        json.loads(content)

    assert len(set(shown)) == 5


@promise(
    "V3",
    "Nothing in .caia can be created, changed, renamed or removed; .caia/control takes commands and"
    " refuses unknown ones with EINVAL.",
)
def test_caia_takes_no_change(shared_caia: Mount):
    folder = shared_caia / ".caia"
    attempts = [
        lambda: (folder / "new").touch(),
        lambda: (folder / "new").mkdir(),
        lambda: (folder / "version").write_text("other"),
        lambda: (folder / "version").unlink(),
        lambda: (folder / "version").rename(folder / "other"),
        lambda: folder.rename(shared_caia / "other"),
        folder.rmdir,
    ]
    for attempt in attempts:
        with pytest.raises(OSError):
            attempt()
    with pytest.raises(OSError) as caught:
        (folder / "control").write_bytes(b"explode\n")

    assert caught.value.errno == errno.EINVAL
    assert (folder / "version").read_text().strip()
