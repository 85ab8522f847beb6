"""The service contract that the CAIA documents name: one request, one commit. No public server serves it; its JSON is defined here.

`tests/support/contract_server.py` is the reference. All bodies are JSON (UTF-8); errors are {error, code, details} as govc has them,
with code REPO_NOT_FOUND, FILE_NOT_FOUND, PARENT_MISMATCH, DOCUMENT_REFUSED or REQUEST_TOO_LARGE where that is what happened.

    POST /api/v1/repos/{repo}/commits
        {"message": "...", "author": "Ada", "email": "ada@example.org", "operation_id": "...",
         "parent": "<commit id>",                                  optional: 409 PARENT_MISMATCH unless it is the head
         "files": [{"path": "a/b.txt", "content": "...", "encoding": "utf-8" | "base64",
                    "mode": "100644" | "100755" | "120000", "kind": ""}],
         "deletions": ["c.txt"]}
        -> 201 {"hash", "message", "author", "email", "timestamp", "parent"}
        The commit is whole or not at all. An operation_id that is already in the log gives 200 and that commit, nothing is done.
        A deletion of what is not there is no error. "files" and "deletions" both empty: 400 INVALID_REQUEST.
    GET /api/v1/repos/{repo}/commits?limit=N
        -> 200 {"commits": [as above, newest first]}
    GET /api/v1/repos/{repo}/files?path=P
        -> 200 {"path", "content", "encoding", "mode", "size", "hash", "kind"}, 404 FILE_NOT_FOUND
    GET /api/v1/repos/{repo}/files
        -> 200 {"head": "<commit id>" or "", "files": [{"path", "mode", "size", "hash", "kind"}]}

A file that the service will not hold: 422 DOCUMENT_REFUSED with details {"path": its path}; the commit is not made.
Paths are as in git, UTF-8, any length. `hash` of a file is the git blob id of its content, `size` its length in
bytes. `kind` is kept and given back as it was sent, "" by default; "caiafs-envelope" marks a file that `codec`
wrote, whose hash is not the document's. Repositories are made and looked up as on the real server
(POST /api/v1/repos, GET /api/v1/repos/{repo}).
"""

import base64
from dataclasses import dataclass
from urllib.parse import quote

from caiafs.backends.base import Capabilities
from caiafs.backends.govc import answers, codec
from caiafs.backends.govc.dialects.base import (
    READ_CODES,
    REQUEST_BYTES,
    CommitPlan,
    Dialect,
    FilePut,
    encode_body,
)
from caiafs.backends.govc.paths import PathRules
from caiafs.backends.govc.wire import Request
from caiafs.core.types import DocPath, GitMode, blob_id

COMMIT_CODES = frozenset({"REQUEST_TOO_LARGE", "DOCUMENT_REFUSED"})
ENVELOPE_KIND = "caiafs-envelope"
_RULES = PathRules(strict=False, target_bytes=6000)


@dataclass(frozen=True, slots=True)
class Contract(Dialect):
    """`/api/v1/repos/{repo}` with `commits` and `files`."""

    @property
    def _root(self) -> str:
        return f"/api/v1/repos/{self.repo}"

    @property
    def rules(self) -> PathRules:
        """Anything that is UTF-8."""
        return _RULES

    @property
    def capabilities(self) -> Capabilities:
        """Listings with hashes; a diff is a comparison of two of them."""
        return Capabilities("contract", lists=True, diffs=False, max_content_bytes=REQUEST_BYTES)

    def plan_log(self, limit: int) -> Request:
        """Plan GET /commits."""
        return Request("GET", f"{self._root}/commits?limit={limit}", "log")

    def plan_read(self, name: str, path: DocPath | None) -> Request:
        """Plan GET /files for one."""
        target = f"{self._root}/files?path={quote(name)}"
        return Request("GET", target, "read", path=path, expected=READ_CODES)

    def plan_listing(self) -> Request:
        """Plan GET /files for all."""
        return Request("GET", f"{self._root}/files", "list", heavy=True)

    def parse_listing(self, payload: object) -> tuple[answers.Listed, ...]:
        """Return all files with hash, size and mode."""
        return answers.parse_listing(payload, "files")

    def decode_file(self, file: answers.File) -> codec.Stored | codec.Tombstone:
        """Return the file as it is, unless its kind says that it is an envelope."""
        if file.kind == ENVELOPE_KIND:
            return codec.decode_content(file.content)
        mode = file.mode or GitMode.FILE
        if mode not in {GitMode.FILE, GitMode.EXECUTABLE, GitMode.SYMLINK}:
            raise codec.DecodeError(f"mode {mode:06o} is no document's")
        header = codec.Header(mode, blob_id(file.content), len(file.content), "utf-8")
        return codec.Stored(header, file.content)

    def plan_commit(self, plan: CommitPlan) -> Request:
        """Plan POST /commits; safe to repeat, the operation id sees to that."""
        body = encode_body(
            {
                "message": plan.message,
                "author": plan.author[0],
                "email": plan.author[1],
                "operation_id": plan.operation_id,
                "files": [_file_fields(file) for file in plan.files],
                "deletions": list(plan.deletions),
            }
        )
        return Request("POST", f"{self._root}/commits", "commit", body, expected=COMMIT_CODES)


def _file_fields(file: FilePut) -> dict[str, object]:
    try:
        content, encoding = file.content.decode(), "utf-8"
    except UnicodeDecodeError:
        content, encoding = base64.b64encode(file.content).decode(), "base64"
    fields: dict[str, object] = {
        "path": file.name,
        "content": content,
        "encoding": encoding,
        "mode": format(file.mode, "06o"),
    }
    return fields | {"kind": file.kind} if file.kind else fields
