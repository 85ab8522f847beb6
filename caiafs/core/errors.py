"""Every error that caiafs raises, and the errno that each becomes at the kernel's side.

    CaiaError
    ├── FsError             the caller's doing; errno says what
    │   ├── NotFound ENOENT      ├── Exists EEXIST         ├── NotEmpty ENOTEMPTY
    │   ├── NotADirectory ENOTDIR├── IsADirectory EISDIR   ├── NameTooLong ENAMETOOLONG
    │   ├── InvalidArgument EINVAL                         ├── PermissionDenied EACCES
    │   ├── NotPermitted EPERM   ├── ReadOnly EROFS        ├── FileTooLarge EFBIG
    │   ├── TooManyLinks EMLINK  ├── CrossDevice EXDEV     ├── NoAttribute ENODATA
    │   └── NotSupported ENOTSUP ├── Busy EBUSY
    ├── StoreError          a backend did not do it
    │   ├── Unreachable EIO, retryable           connection, 5xx, 429, repository gone
    │   │   └── DeadlineExceeded ETIMEDOUT, retryable
    │   ├── Misconfigured EIO                    token, TLS, endpoint: a person must act
    │   ├── Refused EACCES                       one content or name; the rest goes on
    │   ├── RevisionConflict ESTALE              somebody else was first
    │   ├── Absent EIO                           the store cannot show this content
    │   └── Corrupt EIO                          content does not match its id
    ├── StateError          the state directory
    │   ├── StateFull ENOSPC
    │   ├── StateCorrupt EIO                     then the mount is read-only
    │   └── StateBusy EBUSY                      another mount holds the repository
    └── ConfigError         exit code; never reaches the kernel

Foreign exceptions stop at the package that meets them and are raised again as one of these.
"""

import errno as _errno
from typing import ClassVar


class CaiaError(Exception):
    """Base of all; `errno` is what the kernel is told, `retryable` whether a later try may do."""

    errno: ClassVar[int] = _errno.EIO
    retryable: ClassVar[bool] = False


class FsError(CaiaError):
    """The caller asked for what cannot be."""


class NotFound(FsError):
    """No such name or object."""

    errno = _errno.ENOENT


class Exists(FsError):
    """The name is taken."""

    errno = _errno.EEXIST


class NotEmpty(FsError):
    """The directory has entries."""

    errno = _errno.ENOTEMPTY


class NotADirectory(FsError):
    """A directory was needed."""

    errno = _errno.ENOTDIR


class IsADirectory(FsError):
    """A file was needed."""

    errno = _errno.EISDIR


class NameTooLong(FsError):
    """A name of more than 255 bytes."""

    errno = _errno.ENAMETOOLONG


class InvalidArgument(FsError):
    """A value that has no meaning here."""

    errno = _errno.EINVAL


class PermissionDenied(FsError):
    """The caller lacks permission."""

    errno = _errno.EACCES


class NotPermitted(FsError):
    """Nobody may do this here."""

    errno = _errno.EPERM


class ReadOnly(FsError):
    """The mount takes no changes."""

    errno = _errno.EROFS


class FileTooLarge(FsError):
    """Past the largest file size."""

    errno = _errno.EFBIG


class TooManyLinks(FsError):
    """More hard links than can be counted."""

    errno = _errno.EMLINK


class CrossDevice(FsError):
    """A link between two file systems."""

    errno = _errno.EXDEV


class NoAttribute(FsError):
    """No such extended attribute."""

    errno = _errno.ENODATA


class NotSupported(FsError):
    """Not in this file system. Never ENOSYS: the kernel would stop asking for good."""

    errno = _errno.ENOTSUP


class Busy(FsError):
    """Something else has to be ended first."""

    errno = _errno.EBUSY


class StoreError(CaiaError):
    """A backend did not do what it was asked.

    Attributes:
        backend: name of the store, "govc" or "git".
        operation: what was asked of it: "commit", "read", "list" and so on.
        retry_after_s: how long the store asked to be left alone, None where it did not say.
    """

    def __init__(
        self,
        message: str,
        *,
        backend: str = "",
        operation: str = "",
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.backend = backend
        self.operation = operation
        self.retry_after_s = retry_after_s


class Unreachable(StoreError):
    """The store cannot be used now; another may, and this one later."""

    retryable = True


class DeadlineExceeded(Unreachable):
    """The store did not answer in time."""

    errno = _errno.ETIMEDOUT


class Misconfigured(StoreError):
    """The store answers, but not to us: token, TLS, address. Trying again changes nothing."""


class Refused(StoreError):
    """The store will not hold this one content or name.

    Attributes:
        path: the document, None where the store did not say which.
        reason: the store's own words, shortened.
    """

    errno = _errno.EACCES

    def __init__(
        self,
        message: str,
        *,
        path: bytes | None = None,
        reason: str = "",
        backend: str = "",
        operation: str = "",
    ) -> None:
        super().__init__(message, backend=backend, operation=operation)
        self.path = path
        self.reason = reason


class RevisionConflict(StoreError):
    """The store has moved on from the revision that the change started from."""

    errno = _errno.ESTALE


class Absent(StoreError):
    """The store knows of this content and cannot show it."""


class Corrupt(StoreError):
    """What the store gave is not what its id says."""


class StateError(CaiaError):
    """The state directory cannot be used as it is."""


class StateFull(StateError):
    """No space left where the state is kept."""

    errno = _errno.ENOSPC


class StateCorrupt(StateError):
    """The state database is damaged."""


class StateBusy(StateError):
    """Another mount holds this repository."""

    errno = _errno.EBUSY


class ConfigError(CaiaError):
    """A setting that cannot be used.

    Attributes:
        exit_code: what the command ends with; see caiafs(1).
    """

    def __init__(self, message: str, *, exit_code: int = 2) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def leaf(error: BaseException) -> BaseException:
    """Return the first error in the groups that nurseries put round it."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
