"""`caiafs fetch MNT PATH...`: looks documents up in govc that it cannot list, so that they appear in the mount."""

import errno
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from caiafs.cli.exits import ExitCode
from caiafs.cli.live import find_caiafs, read_json, write_control
from caiafs.cli.mounts import below
from caiafs.cli.parser import Parser
from caiafs.core.errors import ConfigError


def run(argv: list[str], environ: Mapping[str, str]) -> int:
    """Fetch each path, name those that govc does not have, and return 0 when it had all.

    Raises:
        ConfigError: not a caiafs mount, no path, or a path outside of it.
    """
    parser = Parser(
        "fetch",
        usage="caiafs fetch MNT PATH... [--from FILE]",
        description=(
            "Look each PATH up in govc and take it in. PATH is below MNT, or relative to its root;\n"
            "FILE holds one a line, - is standard input."
        ),
    )
    parser.add_argument("mountpoint", type=Path, metavar="MNT")
    parser.add_argument("paths", nargs="*", metavar="PATH")
    parser.add_argument("--from", dest="source", metavar="FILE")
    parsed = parser.parse(argv)
    mount = find_caiafs(parsed.mountpoint)
    paths = [os.fsencode(path) for path in parsed.paths]
    if parsed.source is not None:
        paths += read_list(parsed.source)
    if not paths:
        raise ConfigError("which documents? caiafs fetch MNT PATH... [--from FILE]")
    wanted = [document_path(path, mount.point) for path in paths]
    if not read_json(mount, "health.json").get("backends", {}).get("govc", {}).get("configured"):
        raise ConfigError(
            f"{mount.point} has no govc to look documents up in: git alone is used", exit_code=1
        )
    missing = 0
    for path in wanted:
        try:
            write_control(mount, b"fetch " + path + b"\n")
        except OSError as exc:
            if exc.errno != errno.ENOENT:
                shown = os.fsdecode(path)
                raise ConfigError(
                    f"fetch {shown}: {exc.strerror}; `caiafs status {mount.point}` says why",
                    exit_code=1,
                ) from exc
            print(f"govc does not have {os.fsdecode(path)}", file=sys.stderr)
            missing += 1
    print(f"fetched {len(wanted) - missing} of {len(wanted)} documents")
    return ExitCode.FAILURE if missing else ExitCode.OK


def read_list(source: str) -> list[bytes]:
    """Return the paths in the file `source`, one a line; "-" is standard input.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        text = sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
    except OSError as exc:
        raise ConfigError(f"--from {source}: {exc.strerror}") from exc
    return _lines(text.split(b"\n"))


def _lines(lines: Iterable[bytes]) -> list[bytes]:
    return [line for line in lines if line.strip()]


def document_path(path: bytes, mountpoint: Path) -> bytes:
    """Return `path` relative to the mount's root.

    Raises:
        ConfigError: it is outside of the mount, or has a line break, which the control file cannot carry.
    """
    shown = os.fsdecode(path)
    if b"\n" in path:
        raise ConfigError(f"{shown!r} has a line break; fetch cannot name it")
    relative = below(mountpoint, path) if path.startswith(b"/") else os.path.normpath(path)
    if relative is None or relative == b"." or relative.split(b"/")[0] == b"..":
        raise ConfigError(f"{shown} is not a document below {mountpoint}")
    return relative
