"""`caiafs resolve MNT PATH --ours|--theirs|--base|--merged|--file F`: ends a conflict; `--list` names those that are open.

The mount does it, in one commit; here the conflict is found, what is asked is checked, and errors get words.
"""

import errno
import os
import secrets
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

from caiafs.cli.exits import ExitCode
from caiafs.cli.live import caia_directory, find_caiafs, read_json, write_control
from caiafs.cli.mounts import Mount, below
from caiafs.cli.parser import Parser
from caiafs.core.conflicts import RESERVED
from caiafs.core.errors import ConfigError

LIST_FILE = "conflicts.json"
_WAYS = ("ours", "theirs", "base", "merged")
_MARKERS = (b"<<<<<<< ", b">>>>>>> ")
_SHOWN_MAX = 10
_KINDS = {
    "content": "both changed it",
    "added": "both added it",
    "type": "a file against a link",
    "directory": "a document against a directory",
}


def run(argv: list[str], environ: Mapping[str, str]) -> int:
    """End a conflict, or list those that are open.

    Raises:
        ConfigError: not a caiafs mount, no such conflict, or it cannot be ended so.
    """
    parsed = _parser().parse(argv)
    mount = find_caiafs(parsed.mountpoint)
    conflicts: list[dict[str, Any]] = read_json(mount, LIST_FILE)["conflicts"]
    way = "file" if parsed.file is not None else parsed.way
    if parsed.list:
        if parsed.path is not None or way is not None:
            raise ConfigError("--list takes no PATH and no version (caiafs resolve --help)")
        print("\n".join(list_lines(mount, conflicts)))
        return ExitCode.OK
    if parsed.path is None:
        raise ConfigError("which document? caiafs resolve MNT PATH, or --list")
    conflict = choose(conflicts, os.fsencode(parsed.path), mount)
    if way is None:
        raise ConfigError(
            f"which version of {conflict['path']}? --ours (what has the name), --theirs (the copy), --base,"
            f" --merged (it is edited already) or --file FILE; they are in {_directory(mount, conflict)}"
        )
    if parsed.file is not None and parsed.way is not None:
        raise ConfigError(f"--{parsed.way} or --file, not both")
    _check(mount, conflict, way)
    if way == "file":
        with _placed(mount, conflict, parsed.file) as name:
            _ask(mount, conflict, way, f"file {name} {conflict['id']}")
    else:
        _ask(mount, conflict, way, f"{'ours' if way == 'merged' else way} {conflict['id']}")
    print(f"{conflict['path']}: {_done(way, parsed.file)}; {conflict['copy']} is gone")
    return ExitCode.OK


def _parser() -> Parser:
    parser = Parser(
        "resolve",
        usage="caiafs resolve MNT PATH --ours|--theirs|--base|--merged|--file FILE, or caiafs resolve MNT --list",
        description=(
            "End the conflict of the document PATH: the chosen version becomes the document and the conflict\n"
            "copy goes, in one commit. PATH is below MNT, or relative to its root; where a document has several\n"
            "copies, the path of the copy. The versions are in MNT/.caia/conflicts."
        ),
    )
    parser.add_argument("mountpoint", type=Path, metavar="MNT")
    parser.add_argument("path", nargs="?", metavar="PATH")
    parser.add_argument("--list", action="store_true", help="list the open conflicts")
    group = parser.add_mutually_exclusive_group()
    for way, text in zip(
        _WAYS,
        (
            "keep what has the name",
            "take the version in the conflict copy",
            "go back to what both versions started from",
            "keep what has the name, which was edited since to hold both",
        ),
        strict=True,
    ):
        group.add_argument(f"--{way}", dest="way", action="store_const", const=way, help=text)
    parser.add_argument(
        "--file", metavar="FILE", help="take the content of FILE; - is standard input"
    )
    return parser


def list_lines(mount: Mount, conflicts: list[dict[str, Any]]) -> list[str]:
    """Return what `--list` prints."""
    if not conflicts:
        return ["no conflict is open"]
    lines = []
    for conflict in conflicts:
        lines += [
            conflict["path"],
            f"  {_KINDS.get(conflict['kind'], conflict['kind'])}, {conflict['time']}",
            f"  ours    {_version(conflict['ours'])}",
            f"  theirs  {_version(conflict['theirs'])}, in {conflict['copy']}",
            f"  see     {_directory(mount, conflict)}",
        ]
    return lines


def short_lines(conflicts: list[dict[str, Any]]) -> list[str]:
    """Return one line for each of the first conflicts, for `caiafs status`."""
    lines = [f"  {conflict['path']}: {_KINDS.get(conflict['kind'], '')}" for conflict in conflicts]
    left = len(lines) - _SHOWN_MAX
    return lines if left <= 0 else [*lines[:_SHOWN_MAX], f"  and {left} more"]


def _version(version: dict[str, Any] | None) -> str:
    if version is None:
        return "a directory"
    parts = ["1 byte" if version["size"] == 1 else f"{version['size']} bytes"]
    if version["edited"]:
        parts.append("edited since")
    if version["author"]:
        parts.append(f"by {version['author'].partition(' <')[0]}")
    if version["time"]:
        parts.append(version["time"])
    return ", ".join(parts)


def _directory(mount: Mount, conflict: dict[str, Any]) -> Path:
    return caia_directory(mount) / "conflicts" / str(conflict["id"])


def choose(conflicts: list[dict[str, Any]], given: bytes, mount: Mount) -> dict[str, Any]:
    """Return the conflict that a user means by the path of the document or of the copy, or by its id.

    Raises:
        ConfigError: there is none, or there are several.
    """
    by_id = [conflict for conflict in conflicts if os.fsencode(conflict["id"]) == given]
    if by_id:
        return by_id[0]
    for path in _meant(given, mount):
        for key in ("copy_quoted", "path_quoted"):
            found = [conflict for conflict in conflicts if unquote_to_bytes(conflict[key]) == path]
            if len(found) == 1:
                return found[0]
            if found:
                names = ", ".join(conflict["copy"] for conflict in found)
                shown = found[0]["path"]
                raise ConfigError(f"{shown} has {len(found)} conflicts; name one copy: {names}")
    hint = f"; `caiafs resolve {mount.point} --list` names those that are" if conflicts else ""
    shown = given.decode("utf-8", "backslashreplace")
    raise ConfigError(f"no conflict of {shown} is open{hint}", exit_code=ExitCode.FAILURE)


def _meant(given: bytes, mount: Mount) -> list[bytes]:
    """Return the paths in the mount that a user may mean: from the working directory, and from the root."""
    here = below(mount.point, given)
    found = [here] if here is not None else []
    return found if given.startswith(b"/") else [*found, os.path.normpath(given)]


def _check(mount: Mount, conflict: dict[str, Any], way: str) -> None:
    """Refuse what makes no sense before anything is asked.

    Raises:
        ConfigError: it says what to do instead.
    """
    path = conflict["path"]
    if conflict["kind"] == "directory" and way != "ours":
        raise ConfigError(
            f"a directory is called {path}: --ours keeps it and drops the copy; to keep both, rename {conflict['copy']}",
            exit_code=ExitCode.FAILURE,
        )
    if way == "base" and not (conflict["base"] and conflict["base"]["here"]):
        known = conflict["explained"]
        why = (
            "there was none before both added it"
            if known and not conflict["base"]
            else ("it is not known here")
        )
        raise ConfigError(f"{path} has no base: {why}", exit_code=ExitCode.FAILURE)
    if way != "merged":
        return
    if conflict["explained"] and not conflict["ours"]["edited"]:
        raise ConfigError(
            f"{path} was not edited since the conflict; edit it first, or --ours keeps it as it is",
            exit_code=ExitCode.FAILURE,
        )
    with _document(mount, conflict).open("rb") as file:
        if any(line.startswith(_MARKERS) for line in file):
            raise ConfigError(
                f"{path} still has conflict markers (<<<<<<<); edit it, or --ours keeps it as it is",
                exit_code=ExitCode.FAILURE,
            )


def _document(mount: Mount, conflict: dict[str, Any]) -> Path:
    return mount.point / os.fsdecode(unquote_to_bytes(conflict["path_quoted"]))


@contextmanager
def _placed(mount: Mount, conflict: dict[str, Any], source: str) -> Iterator[str]:
    """Put the content of `source` into a file beside the document that is never published, and yield its name."""
    name = os.fsdecode(RESERVED) + secrets.token_hex(8)
    target = _document(mount, conflict).with_name(name)
    try:
        with target.open("xb") as into:
            if source == "-":
                shutil.copyfileobj(sys.stdin.buffer, into)
            else:
                with Path(source).open("rb") as content:
                    shutil.copyfileobj(content, into)
        yield name
    except OSError as exc:
        where = exc.filename if exc.filename is not None else source
        raise ConfigError(f"{where}: {exc.strerror}", exit_code=ExitCode.FAILURE) from exc
    finally:
        target.unlink(missing_ok=True)


def _ask(mount: Mount, conflict: dict[str, Any], way: str, command: str) -> None:
    try:
        write_control(mount, b"resolve " + os.fsencode(command) + b"\n")
    except OSError as exc:
        words = {
            errno.EBUSY: "it, or its copy, is open for writing: save and close it there, then try again",
            errno.ENOENT: "the conflict has ended meanwhile",
            errno.EROFS: "the mount takes no changes",
            errno.ENODATA: "the base is not known here",
            errno.ENOSPC: "the disk of the state directory is full",
        }
        why = words.get(exc.errno or 0, exc.strerror)
        raise ConfigError(f"{conflict['path']}: {why}", exit_code=ExitCode.FAILURE) from exc


def _done(way: str, source: str | None) -> str:
    return {
        "ours": "kept as it is",
        "merged": "kept as it was edited",
        "theirs": "has the other version now",
        "base": "is what it was before both changed it",
        "file": f"has the content of {'standard input' if source == '-' else source} now",
    }[way]
