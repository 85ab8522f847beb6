"""What user.caia.message and user.caia.source say of the next commit of a document."""

import errno
import os
from pathlib import Path

import pytest

from tests.conftest import MountFactory
from tests.mount.test_transactions import changed, control
from tests.support.mount import Mount
from tests.support.requirements import require_tool
from tests.tools.shell import shell

pytestmark = [pytest.mark.mount, pytest.mark.slow]

MESSAGE = "user.caia.message"
SOURCE = "user.caia.source"


@pytest.fixture
def caia(patient_caia: Mount) -> Mount:
    return patient_caia


@pytest.fixture
def doc(caia: Mount) -> Path:
    """Return a published document."""
    (caia / "doc").write_text("one")
    caia.sync()
    return caia / "doc"


def messages(caia: Mount) -> list[str]:
    """Return each commit's message without our trailers, oldest first."""
    texts = caia.git("log", "--reverse", "--format=%B%x00").split("\0\n")
    return [text.partition("\n\nCaiafs-Operation")[0].strip() for text in texts if text]


def sources(caia: Mount) -> list[str]:
    text = caia.git("log", "--reverse", "--format=%(trailers:key=Caiafs-Source,valueonly)")
    return [line for line in text.splitlines() if line]


def said(path: Path, name: str) -> bytes | None:
    try:
        return os.getxattr(path, name)
    except OSError as exc:
        if exc.errno != errno.ENODATA:
            raise
        return None


def test_message_and_source_are_the_next_commit_s_and_no_other_s(caia: Mount, doc: Path):
    os.setxattr(doc, MESSAGE, "Correct the year\n\nIt was 1852, says Müller.\n".encode())
    os.setxattr(doc, SOURCE, b"https://example.org/a.pdf")

    doc.write_text("two")
    caia.sync()
    doc.write_text("three")
    caia.sync()

    assert messages(caia)[1:] == [
        "Correct the year\n\nIt was 1852, says Müller.",
        "Update doc",
    ]
    assert sources(caia) == ["https://example.org/a.pdf"]


def test_what_was_said_can_be_read_until_it_is_in_a_commit(caia: Mount, doc: Path):
    os.setxattr(doc, MESSAGE, b"Say why")
    assert said(doc, MESSAGE) == b"Say why"
    assert os.listxattr(doc) == []

    doc.write_text("two")
    caia.sync()

    assert said(doc, MESSAGE) is None


def test_what_was_said_can_be_withdrawn_and_said_otherwise(caia: Mount, doc: Path):
    os.setxattr(doc, MESSAGE, b"Wrong")
    os.setxattr(doc, MESSAGE, b"Right")
    os.setxattr(doc, SOURCE, b"nowhere")
    os.removexattr(doc, SOURCE)
    with pytest.raises(OSError):
        os.removexattr(doc, SOURCE)

    doc.write_text("two")
    caia.sync()

    assert messages(caia)[-1] == "Right"
    assert sources(caia) == []


@pytest.mark.parametrize("dies", ["kill", "remount"])
def test_what_was_said_outlives_the_mount(caia: Mount, doc: Path, dies: str):
    os.setxattr(doc, MESSAGE, b"Say why")

    if dies == "kill":
        caia.kill9()
        caia.start()
    else:
        caia.remount()

    assert said(doc, MESSAGE) == b"Say why"
    doc.write_text("two")
    caia.sync()
    assert messages(caia)[-1] == "Say why"


def test_what_was_said_of_a_saved_version_outlives_a_kill_before_its_commit(
    mount_caia: MountFactory,
):
    caia = mount_caia(options=["commit=interval", "commit_interval=1h"])
    (caia / "first").write_text("commits at once")
    caia.sync()
    (caia / "doc").write_text("one")
    os.setxattr(caia / "doc", MESSAGE, b"Say why")
    (caia / "doc").write_text("two")
    caia.kill9()
    caia.start()
    assert said(caia / "doc", MESSAGE) == b"Say why"

    caia.sync()

    assert messages(caia)[-2:] == ["Add doc", "Say why"]


SAVES = {
    "sed": "sed -i s/one/two/ doc",
    "rename over": "echo two > doc.tmp; mv doc.tmp doc",
    "backup by rename": "mv doc doc~; echo two > doc",
    "local temporary": "echo two > .goutputstream-1; mv .goutputstream-1 doc",
    "vim": "vim -N -u NONE --cmd 'set backup backupcopy=no' -es -c 'normal! ctwo' -c wq doc",
    "rename": "mv doc other",
    "removal": "rm doc",
    "mode": "chmod +x doc",
}


@pytest.mark.parametrize("how", SAVES)
def test_message_belongs_to_the_document_however_it_is_saved(caia: Mount, doc: Path, how: str):
    if how == "vim":
        require_tool("vim")
    os.setxattr(doc, MESSAGE, b"Say why")

    shell(SAVES[how], cwd=caia.path)
    caia.sync()

    assert messages(caia)[1:] == ["Say why"]


def test_of_several_documents_in_a_commit_each_message_names_its_own(caia: Mount, doc: Path):
    control(caia, "begin\n")
    for name in ("doc", "other"):
        (caia / name).write_text("two")
        os.setxattr(caia / name, MESSAGE, f"Say why {name}".encode())
        os.setxattr(caia / name, SOURCE, f"scan of {name}".encode())
        (caia / name).write_text("three")
    control(caia, "commit Both\n")

    assert changed(caia)[1:] == [["doc", "other"]]
    assert messages(caia)[-1].split("\n\n")[:3] == [
        "Both",
        "doc: Say why doc",
        "other: Say why other",
    ]
    assert sources(caia) == ["scan of doc (doc)", "scan of other (other)"]


@pytest.mark.parametrize("value", [b"", b" \n", b"a\0b", b"\xff\xfe", b"x" * 5000])
def test_what_is_no_text_of_bounded_length_is_refused(caia: Mount, doc: Path, value: bytes):
    for name in (MESSAGE, SOURCE):
        with pytest.raises(OSError) as caught:
            os.setxattr(doc, name, value)
        assert caught.value.errno == errno.EINVAL

    with pytest.raises(OSError):
        os.setxattr(caia.path, MESSAGE, b"a directory has no commit")


def test_hostile_text_forges_no_trailer(caia: Mount, doc: Path):
    os.setxattr(doc, MESSAGE, b"x\n\nCaiafs-Operation: deadbeef-1-999999\nCaiafs-Host: elsewhere")
    os.setxattr(doc, SOURCE, b"x\nCaiafs-Operation: deadbeef-1-999999")

    doc.write_text("two")
    caia.sync()
    caia.remount()

    trailers = caia.git("log", "-1", "--format=%(trailers:only,unfold)")
    assert "deadbeef" not in trailers.replace("Caiafs-Source: x Caiafs-Operation: deadbeef", "")
    assert "elsewhere" not in trailers
    assert doc.read_text() == "two"


def test_copy_does_not_take_what_was_said_along(caia: Mount, doc: Path):
    os.setxattr(doc, MESSAGE, b"Say why")

    shell("cp -a doc copy", cwd=caia.path)
    caia.sync()

    assert messages(caia)[-1] == "Add copy"
    assert said(doc, MESSAGE) == b"Say why"
