"""The real server with `use_new_architecture: false`, `/api/v1`.

Lists everything, deletes, diffs; takes any path. Slower with every document it holds. Moves are sent as their parts: its `move` is no more
atomic than that.

Its middleware validates a path wherever the URL's path has the letters "files" in it: the parameter `path` of the query, else the one of
the route. The latter begins with a slash there, so it is refused as absolute: `base-files/FAQ` can be added, committed and listed, but
neither read nor removed, and in a repository named `my-files` nothing can. With the name in the query as well, which the handlers do not
look at, all of it works, for documents of other clients too; hence no name is escaped for this (test_names).
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
from caiafs.backends.govc.paths import PathRules, passes_validation
from caiafs.backends.govc.wire import Request
from caiafs.core.types import DocPath

# 4,000 bytes in the request line pass, 8,000 get 413 PATH_TOO_LONG.
_RULES = PathRules(strict=False, target_bytes=3500)
_VALIDATED = "files"
_QUERY_BYTES = 2000


@dataclass(frozen=True, slots=True)
class V1(StagedDialect):
    """`/api/v1/repos/{repo}`."""

    @property
    def _root(self) -> str:
        return f"/api/v1/repos/{self.repo}"

    @property
    def rules(self) -> PathRules:
        """Anything that is UTF-8 and fits a request line."""
        return _RULES

    @property
    def capabilities(self) -> Capabilities:
        """Complete listings and diffs."""
        return Capabilities("rest-v1", lists=True, diffs=True, max_content_bytes=REQUEST_BYTES)

    @property
    def loses_commits(self) -> bool:
        """Commits wait for each other."""
        return False

    def plan_log(self, limit: int) -> Request:
        """Plan GET /log."""
        return Request("GET", f"{self._root}/log?limit={limit}", "log", expected=LOG_CODES)

    def plan_read(self, name: str, path: DocPath | None) -> Request:
        """Plan GET /read/{path}."""
        target = self._validated(f"{self._root}/read/{quote(name)}", name)
        return Request("GET", target, "read", path=path, expected=READ_CODES)

    def plan_listing(self) -> Request:
        """Plan GET /tree; the server reads every file for its size, hence heavy."""
        target = self._validated(f"{self._root}/tree/?recursive=true", "")
        return Request("GET", target, "list", heavy=True)

    def parse_listing(self, payload: object) -> tuple[answers.Listed, ...]:
        """Return all files."""
        return answers.parse_listing(payload, "entries")

    def plan_diff(self, old: str, new: str) -> Request | None:
        """Plan GET /diff/{from}/{to}."""
        return Request("GET", f"{self._root}/diff/{quote(old)}/{quote(new)}", "diff", heavy=True)

    def plan_add(self, name: str, text: str, path: DocPath | None) -> Request:
        """Plan POST /add."""
        body = encode_body({"path": name, "content": text})
        return Request("POST", f"{self._root}/add", "add", body, path, ADD_CODES)

    def plan_remove(self, name: str, path: DocPath | None) -> Request | None:
        """Plan DELETE /remove/{path}; it is no error that nothing is there."""
        target = self._validated(f"{self._root}/remove/{quote(name)}", name)
        return Request("DELETE", target, "remove", path=path, expected=READ_CODES)

    def plan_commit(self, message: str, author: tuple[str, str]) -> Request:
        """Plan POST /commit."""
        name, email = author
        body = encode_body({"message": message, "author": name, "email": email})
        return Request(
            "POST", f"{self._root}/commit", "commit", body, expected=COMMIT_CODES, repeatable=False
        )

    def _validated(self, target: str, name: str) -> str:
        """Return `target` with what the middleware validates instead of the route's path.

        The name itself where it passes and fits, so that nothing else is asked for than is meant.
        """
        if _VALIDATED not in self.repo and _VALIDATED not in name:
            return target
        value = quote(name)
        if not name or not passes_validation(name) or len(value) > _QUERY_BYTES:
            value = _VALIDATED
        return f"{target}{'&' if '?' in target else '?'}path={value}"
