"""The upkeep commands as a test runs them, and damage as a disk does it."""

import contextlib
import hashlib
import json
import os
import sqlite3
import zlib
from pathlib import Path
from typing import Any, NamedTuple

from tests.support.mount import Mount, git, run_caiafs

NEVER = ("commit=interval", "commit_interval=1h")
"""Options of a mount whose saves stay pending until it is unmounted or killed."""


class Told(NamedTuple):
    """What `caiafs fsck --json` said."""

    code: int
    findings: list[dict[str, Any]]
    left: list[dict[str, Any]]
    done: list[str]
    lost: Path | None

    def errors(self) -> list[str]:
        """Return the kinds of the faults."""
        return [finding["kind"] for finding in self.findings if finding["error"]]

    def text(self) -> str:
        """Return all that was said of the faults."""
        return "\n".join(f"{f['where']}: {f['what']}; {f['meaning']}" for f in self.findings)


def fsck(repo: Path, *args: str, env: dict[str, str] | None = None) -> Told:
    """Run `caiafs fsck --json ARGS REPO`."""
    done = run_caiafs("fsck", "--json", *args, repo, env=env, timeout_s=120)
    assert done.stdout, done.stderr
    told = json.loads(done.stdout)
    assert told["exit_code"] == done.returncode
    lost = Path(told["lost"]) if told["lost"] else None
    return Told(done.returncode, told["findings"], told["left"], told["done"], lost)


def digests(root: Path) -> dict[bytes, str]:
    """Return the hash of every file below `root`, and the target of every link, by path."""
    top = os.fsencode(root)
    found: dict[bytes, str] = {}
    for folder, folders, names in os.walk(top):
        if b".git" in folders and folder == top:
            folders.remove(b".git")
        for name in names + [n for n in folders if os.path.islink(folder + b"/" + n)]:
            path = folder + b"/" + name
            if os.path.islink(path):
                found[os.path.relpath(path, top)] = "-> " + os.fsdecode(os.readlink(path))
                continue
            with open(path, "rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            found[os.path.relpath(path, top)] = digest
    return found


def save_some(root: Path, tag: str = "") -> dict[bytes, str]:
    """Save documents of all sizes and odd names; return their hashes."""
    (root / "d" / "deep").mkdir(parents=True, exist_ok=True)
    (root / f"small{tag}").write_text(f"small {tag}\n")
    (root / f"empty{tag}").write_bytes(b"")
    (root / "d" / f"inline{tag}").write_bytes(os.urandom(30_000))
    (root / "d" / "deep" / f"large{tag}").write_bytes(os.urandom(1_500_000))
    (root / f"tool{tag}").write_text("#!/bin/sh\n")
    (root / f"tool{tag}").chmod(0o755)
    (root / f"link{tag}").symlink_to(f"small{tag}")
    with open(os.fsencode(root) + b"/d/na\xffme" + tag.encode(), "wb") as file:
        file.write(b"odd name " + tag.encode())
    return digests(root)


def checkpoint(database: Path) -> None:
    """Put what is in the log of a database into its file, as the next opening does."""
    with contextlib.closing(sqlite3.connect(database)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def flip(file: Path, offset: int, count: int = 1) -> None:
    """Change `count` bytes of a file in place."""
    mode = file.stat().st_mode
    file.chmod(0o600)
    with file.open("r+b") as opened:
        opened.seek(offset)
        old = opened.read(count)
        opened.seek(offset)
        opened.write(bytes(byte ^ 0x5A for byte in old))
    file.chmod(mode)


def loose_file(repo: Path, oid: str) -> Path:
    """Return the loose file of an object, unpacked where it is in a pack."""
    file = repo / "objects" / oid[:2] / oid[2:]
    if not file.exists():
        unpack(repo)
    assert file.exists()
    return file


def unpack(repo: Path) -> None:
    """Make every packed object a loose one."""
    packs = repo / "objects" / "pack"
    aside = repo / "packs-aside"
    packs.rename(aside)
    packs.mkdir()
    for pack in aside.glob("*.pack"):
        git("unpack-objects", "-q", cwd=repo, stdin=pack.read_bytes())
    for file in aside.iterdir():
        file.unlink()
    aside.rmdir()


def blob_of(repo: Path, path: str) -> str:
    """Return the id of a document on the branch."""
    return git("rev-parse", f"HEAD:{path}", cwd=repo).strip()


def inflate(file: Path) -> bytes:
    """Return a loose object's bytes."""
    return zlib.decompress(file.read_bytes())


def state(caia: Mount) -> Path:
    """Return the state directory."""
    return caia.repo / "caiafs"
