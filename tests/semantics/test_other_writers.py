"""Proofs of caiafs-semantics(7): other writers."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.support.colleague import Colleague
from tests.support.mount import Mount
from tests.support.promises import promise
from tests.support.requirements import require_tool
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.mount, pytest.mark.slow]


@pytest.fixture
def colleague(caia: Mount, tmp_path: Path) -> Colleague:
    """Return somebody who has a clone with the published documents `doc` and `other`."""
    (caia / "doc").write_text("one\n")
    (caia / "other").write_text("other\n")
    caia.sync()
    return Colleague(caia, tmp_path / "colleague")


@promise(
    "O1",
    "A commit that somebody pushes to the branch is seen in the mount within poll_interval, without"
    " a remount; a handle that was open before keeps the content that it opened.",
)
def test_pushed_commit_is_seen_and_open_handles_keep_their_content(
    caia: Mount, colleague: Colleague
):
    reader = os.open(caia / "doc", os.O_RDONLY)

    colleague.push(doc="a longer text by a colleague\n", new="new\n")

    wait_until(
        lambda: (caia / "doc").read_text() == "a longer text by a colleague\n",
        "the pushed document",
        timeout_s=30,  # poll_interval is a second; the rest is for a busy machine
    )
    assert (caia / "new").read_text() == "new\n"
    assert os.pread(reader, 100, 0) == b"one\n"
    os.close(reader)


@promise(
    "O19",
    "Who watches a document (inotify) that somebody else changes, replaces or removes is told of its"
    " deletion; of what appears, a watched directory is not told.",
)
def test_watchers_of_a_document_hear_of_a_push(caia: Mount, colleague: Colleague, tmp_path: Path):
    require_tool("inotifywait")
    events = tmp_path / "events"
    events.touch()
    watched = [caia.path, caia / "doc", caia / "other"]
    watcher = subprocess.Popen(
        ["inotifywait", "-m", "-q", "-o", events, "--format", "%e %w%f", *watched]
    )

    def is_watching() -> bool:
        (caia / "other").touch()
        (caia / "doc").touch()
        return {f"ATTRIB {path}" for path in watched[1:]} <= set(events.read_text().split("\n"))

    try:
        wait_until(is_watching, "inotifywait watches")
        colleague.push(doc="by a colleague\n", new="new\n")
        (colleague.work / "other").unlink()
        colleague.commit()
        wait_until(
            lambda: (
                {f"DELETE_SELF {path}" for path in watched[1:]}
                <= set(events.read_text().split("\n"))
            ),
            "both watches end",
        )
    finally:
        watcher.terminate()
        watcher.wait()
    assert (caia / "new").read_text() == "new\n"
    assert not (caia / "other").exists()
    assert "CREATE" not in events.read_text()


@promise(
    "O2",
    "Changes of different documents are merged silently, and the branch only ever moves forward:"
    " what was its head stays an ancestor.",
)
def test_changes_of_different_documents_are_merged(caia: Mount, colleague: Colleague):
    heads = [caia.git("rev-parse", "HEAD").strip()]
    for i in range(4):
        (caia / "doc").write_text(f"by the mount {i}\n")
        heads.append(colleague.push(**{f"theirs-{i}": f"by a colleague {i}\n"}))
    caia.sync()

    assert caia.git("cat-file", "blob", "HEAD:doc") == "by the mount 3\n"
    listed = caia.git("ls-tree", "--name-only", "HEAD").split()
    assert listed == ["doc", "other", "theirs-0", "theirs-1", "theirs-2", "theirs-3"]
    wait_until(lambda: sorted(os.listdir(caia.path)) == listed, "the mount shows the same")
    for head in heads:
        caia.git("merge-base", "--is-ancestor", head, "HEAD")


@promise(
    "O3",
    "Where two change the same document in ways that do not merge, both versions stay: one keeps"
    " the name, the other is beside it as NAME.conflict-TIME-ID.",
)
def test_conflicting_versions_both_stay(caia: Mount, colleague: Colleague):
    caia.expect_log("conflict")
    with (caia / "doc").open("w") as handle:  # not published before it is closed
        handle.write("by the mount\n")
        handle.flush()
        colleague.push(doc="by a colleague\n")
    caia.sync()

    names = [n for n in caia.git("ls-tree", "--name-only", "HEAD").split() if n != "other"]
    texts = {name: caia.git("cat-file", "blob", f"HEAD:{name}") for name in names}
    assert sorted(texts.values()) == ["by a colleague\n", "by the mount\n"]
    assert names[0] == "doc"
    assert names[1].startswith("doc.conflict-")
    wait_until(
        lambda: {n: (caia / n).read_text() for n in os.listdir(caia.path) if n != "other"} == texts,
        "the mount shows both",
    )
