"""Which paths are never published: editors' and desktops' temporary files.

Used by vfs.publication. Pure. Patterns are in gitignore syntax; a path below a local directory is
local too.
"""

import functools
from collections.abc import Callable, Sequence

import pathspec

from caiafs.core.errors import ConfigError
from caiafs.core.types import DocPath

_REMEMBERED = 16_384


class LocalNames:
    """Decides by name whether a file stays in this mount."""

    def __init__(self, patterns: Sequence[str]) -> None:
        try:
            spec = pathspec.GitIgnoreSpec.from_lines(patterns)
        except ValueError as exc:
            raise ConfigError(f"local_patterns: {exc}") from exc

        def match(text: str) -> bool:
            return spec.match_file(text)

        self._match: Callable[[str], bool] = functools.lru_cache(_REMEMBERED)(match)
        # Without a slash a pattern looks at one name only; then names can be remembered, and a
        # directory of a million documents costs one match a distinct name.
        self._by_name = not any("/" in pattern.rstrip("/") for pattern in patterns)

    def match(self, path: DocPath) -> bool:
        """Whether the document at `path` is local."""
        text = path.decode("utf-8", "surrogateescape")
        if self._by_name:
            return any(map(self._match, text.split("/")))
        return self._match(text)
