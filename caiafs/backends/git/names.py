r"""Names that git refuses in a tree, and how they are stored instead.

`git fsck --strict` refuses `.git` and everything that some file system takes for it: other cases, HFS+
ignorable characters, NTFS short names, streams and trailing dots, and all of these after a backslash. Such a
name is stored as `%caia-` and the name itself, with `%` and `\` percent-encoded: `.git` is `%caia-.git`. So is a
name that begins with `%caia-` already; everything else is stored as it is. `.gitmodules` and `.gitattributes`
are stored plainly only as files with content that fsck accepts (`is_plain_special`), their look-alikes never.

Pure. Reading accepts both spellings; writing knows one (`trees`).
"""

import re

PREFIX = b"%caia-"

_DOTGIT = frozenset((b".git", b"git~1"))
_SPECIAL = frozenset((b".gitmodules", b".gitattributes"))
_SHORT_NAMES = tuple(
    # NTFS: gitmod~1, and when those are taken the first letters of a hash of the name: gi7eba~1.
    re.compile(pattern)
    for pattern in (
        rb"git(?:mod|att)~[0-9]",
        rb"(?=.{8}\Z)(?:g(?:i(?:7(?:e(?:ba?)?|d(?:29?)?)?)?)?)?~[1-9][0-9]*",
    )
)
_HFS_IGNORED = re.compile(
    rb"\xe2\x80[\x8c-\x8f\xaa-\xae]|\xe2\x81[\xaa-\xaf]|\xef\xbb\xbf"
)  # U+200C-200F, U+202A-202E, U+206A-206F, U+FEFF

_SECTION = re.compile(rb'\[submodule "[A-Za-z0-9][A-Za-z0-9_./-]*"\]')
_SETTING = re.compile(
    rb"(?:path|branch|ignore|shallow|fetchRecurseSubmodules) *= *[A-Za-z0-9_][A-Za-z0-9_./ -]*"
    rb"|update *= *(?:checkout|rebase|merge|none)"
    rb"|url *= *(?:https?://|ssh://|git://|[A-Za-z0-9_.-]+@[A-Za-z0-9.-]+:|(?:\.\.?/)+|/)?"
    rb"[A-Za-z0-9_][A-Za-z0-9_.~@+/-]*(?::[0-9]+/[A-Za-z0-9_.~@+/-]+)?"
)
_ATTRIBUTES_LINE_MAX = 2047
SPECIAL_MAX_BYTES = 1 << 20


def escape(name: bytes) -> bytes:
    """Return the escaped spelling of `name`, whether it needs one or not."""
    return PREFIX + name.replace(b"%", b"%25").replace(b"\\", b"%5C")


def unescape(stored: bytes) -> bytes:
    """Return the name that an entry called `stored` shows.

    Only a spelling that `escape` gives, of a name that may need it, is taken for one.
    """
    if not stored.startswith(PREFIX):
        return stored
    name = stored[len(PREFIX) :].replace(b"%5C", b"\\").replace(b"%25", b"%")
    may_be_escaped = is_refused(name) or is_special(name)
    return name if may_be_escaped and escape(name) == stored else stored


def spellings(name: bytes) -> tuple[bytes, ...]:
    """Return the entry names that show as `name`, the plain one first."""
    if is_refused(name) or is_special(name):
        return (name, escape(name))
    return (name,)


def is_refused(name: bytes) -> bool:
    """Whether an entry `name` is never stored plainly: fsck refuses it, or it looks like an escape."""
    if name.startswith(PREFIX):
        return True
    folded = name.lower()
    if b"git" not in _HFS_IGNORED.sub(b"", folded) and b"~" not in folded:
        return False
    return any(
        canonical in _DOTGIT
        or any(pattern.match(canonical) for pattern in _SHORT_NAMES)
        or (canonical in _SPECIAL and name not in _SPECIAL)
        for canonical in map(_canonical, folded.split(b"\\"))
    )


def is_special(name: bytes) -> bool:
    """Whether an entry `name` is stored plainly only with content that fsck accepts."""
    return name in _SPECIAL


def is_plain_special(name: bytes, content: bytes) -> bool:
    """Whether a file `name`, one of `is_special`, may keep its name with this content.

    Stricter than fsck: what a careful person writes passes, anything unusual is escaped.
    """
    if len(content) > SPECIAL_MAX_BYTES:
        return False
    lines = content.split(b"\n")
    if name == b".gitattributes":
        return all(len(line) <= _ATTRIBUTES_LINE_MAX for line in lines)
    return all(_is_plain_setting(line.strip()) for line in lines)


def _canonical(component: bytes) -> bytes:
    """Return what HFS+ and NTFS make of a lower-case name: no ignorables, stream or trailing dots."""
    return _HFS_IGNORED.sub(b"", component).partition(b":")[0].rstrip(b" .")


def _is_plain_setting(line: bytes) -> bool:
    if not line or line.startswith((b"#", b";")):
        return True
    return bool(_SECTION.fullmatch(line) or _SETTING.fullmatch(line)) and b".." not in line.replace(
        b"../", b"", 8
    )
