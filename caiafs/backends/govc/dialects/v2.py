"""The real server as it comes: its new architecture, `/api/v2`.

Lists the first level only, cannot delete (a tombstone stands for it), has no diff, and validates paths and messages strictly. A read shows
what is staged, too, and ignores any revision that it is asked for. Its query string holds 2,048 bytes.
"""

from dataclasses import dataclass
from urllib.parse import quote

from caiafs.backends.base import Capabilities
from caiafs.backends.govc import answers
from caiafs.backends.govc.dialects.base import (
    ADD_CODES,
    COMMIT_CODES,
    LOG_CODES,
    READ_CODES,
    REQUEST_BYTES,
    StagedDialect,
    encode_body,
)
from caiafs.backends.govc.paths import PathRules
from caiafs.backends.govc.wire import Request
from caiafs.core.types import DocPath

QUERY_BYTES = 2048
_RULES = PathRules(strict=True, target_bytes=QUERY_BYTES - len("path="))


@dataclass(frozen=True, slots=True)
class V2(StagedDialect):
    """`/api/v2/repos/{repo}`."""

    @property
    def _root(self) -> str:
        return f"/api/v2/repos/{self.repo}"

    @property
    def rules(self) -> PathRules:
        """Strict, and short enough for a query."""
        return _RULES

    @property
    def capabilities(self) -> Capabilities:
        """Neither complete listings nor diffs."""
        return Capabilities("rest-v2", lists=False, diffs=False, max_content_bytes=REQUEST_BYTES)

    @property
    def loses_commits(self) -> bool:
        """Two commits at once may get the same parent; one is then in no log."""
        return True

    def plan_log(self, limit: int) -> Request:
        """Plan GET /commits."""
        return Request("GET", f"{self._root}/commits?limit={limit}", "log", expected=LOG_CODES)

    def plan_read(self, name: str, path: DocPath | None) -> Request:
        """Plan GET /files."""
        target = f"{self._root}/files?path={quote(name)}"
        return Request("GET", target, "read", path=path, expected=READ_CODES)

    def plan_listing(self) -> Request:
        """Plan GET /tree, which gives the first level whatever it is asked for."""
        return Request("GET", f"{self._root}/tree", "list", heavy=True)

    def parse_listing(self, payload: object) -> tuple[answers.Listed, ...]:
        """Return the files of the first level."""
        return answers.parse_listing(payload, "entries")

    def plan_add(self, name: str, text: str, path: DocPath | None) -> Request:
        """Plan POST /files."""
        body = encode_body({"path": name, "content": text})
        return Request("POST", f"{self._root}/files", "add", body, path, ADD_CODES)

    def plan_remove(self, name: str, path: DocPath | None) -> Request | None:
        """Return None: DELETE /files ignores the path and stages an empty deletion."""
        _ = name, path
        return None

    def plan_commit(self, message: str, author: tuple[str, str]) -> Request:
        """Plan POST /commits."""
        name, email = author
        body = encode_body({"message": message, "author": name, "email": email})
        return Request(
            "POST",
            f"{self._root}/commits",
            "commit",
            body,
            expected=COMMIT_CODES,
            repeatable=False,
        )
