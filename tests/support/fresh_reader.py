"""A program that reads documents from a govc server as somebody who has nothing but its address.

usage: python -m tests.support.fresh_reader URL REPOSITORY TARGET < NUL-separated paths. Writes each document below TARGET; a document that
is missing or unreadable ends it. No state, no repository, no cache.
"""

import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import trio

from caiafs.backends.govc import GovcBackend, GovcSettings
from caiafs.core.types import DocPath, GitMode
from tests.support.govc_documents import Contents
from tests.support.mount import PROJECT, clean_environment


async def read_all(url: str, repository: str, target: bytes, paths: list[bytes]) -> None:
    """Write the documents at `paths` below `target`."""
    token, ca_file = os.environ.get("GOVC_AUTH_TOKEN", ""), os.environ.get("CAIAFS_GOVC_CA_FILE")
    settings = GovcSettings(
        url=url,
        repo_name=repository,
        token=token,
        ca_file=Path(ca_file) if ca_file else None,
        allow_insecure_token="CAIAFS_GOVC_ALLOW_INSECURE_TOKEN" in os.environ,
    )
    backend = GovcBackend(settings, Contents())
    await backend.connect()
    for path in paths:
        document = await backend.read(DocPath(path))
        if document is None:
            raise SystemExit(f"govc does not have {path!r}")
        place = target + b"/" + path
        os.makedirs(os.path.dirname(place), exist_ok=True)
        if document.entry.mode == GitMode.SYMLINK:
            os.symlink(document.content, place)
            continue
        fd = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, document.entry.mode & 0o777)
        with os.fdopen(fd, "wb") as handle:
            handle.write(document.content)
    await backend.aclose()


def read_govc(
    url: str,
    paths: Iterable[bytes],
    target: Path,
    *,
    repository: str = "caia-documents",
    env: Mapping[str, str] | None = None,
) -> Path:
    """Read documents from the server in a new process; return `target`, which then holds them."""
    target.mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.fresh_reader", url, repository, str(target)],
        input=b"\0".join(paths),
        cwd=PROJECT,
        env=clean_environment(env),
        capture_output=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    return target


def main() -> None:
    url, repository, target = sys.argv[1:4]
    paths = [path for path in sys.stdin.buffer.read().split(b"\0") if path]
    trio.run(read_all, url, repository, os.fsencode(target), paths)


if __name__ == "__main__":
    main()
