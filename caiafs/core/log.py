"""Where log lines go: a file beside the state DB, rotated at 10 MiB, and stderr in the foreground.

Set up once by the command line, before the repository exists: lines wait in memory until the state directory is there, so that
nothing here creates it. Secrets are masked, and a storm of the same warning is kept short.
"""

import io
import logging
import os
import stat
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable
from logging.handlers import RotatingFileHandler
from pathlib import Path

MAX_BYTES = 10 * 1024 * 1024
BACKUPS = 2
_WAITING_MAX = 1000
_FORMAT = "%(asctime)s.%(msecs)03dZ %(levelname)s %(name)s: %(message)s"


def _drop(record: logging.LogRecord) -> None:
    """Do without a line that cannot be written."""


class LateFileHandler(logging.Handler):
    """Writes to a rotated file as soon as its directory exists; until then lines wait, the newest 1,000 of them."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self._file: RotatingFileHandler | None = None
        self._waiting: deque[logging.LogRecord] = deque(maxlen=_WAITING_MAX)

    def emit(self, record: logging.LogRecord) -> None:
        """Write `record`, or keep it until there is somewhere to write to."""
        self._waiting.append(record)
        if self._file is None and not self._open():
            return
        while self._waiting and self._file is not None:
            self._file.emit(self._waiting.popleft())

    def _open(self) -> bool:
        if not _is_own_directory(self._path.parent):
            return False
        try:
            self._file = _PrivateFileHandler(
                self._path,
                maxBytes=MAX_BYTES,
                backupCount=BACKUPS,
                encoding="utf-8",
                errors="backslashreplace",
            )
        except OSError:  # an unwritable log must not stop the mount; stderr has the lines
            return False
        self._file.setFormatter(self.formatter)
        self._file.handleError = _drop  # type: ignore[method-assign]  # a full disk: stderr has the line
        return True

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
        super().close()


class _PrivateFileHandler(RotatingFileHandler):
    """Writes to a plain file that only its owner reads, and to nothing that somebody put in its place."""

    def _open(self) -> io.TextIOWrapper:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
        # Not through a link, and without waiting for whoever reads a FIFO.
        flags |= os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        fd = os.open(self.baseFilename, flags, 0o600)
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
            os.close(fd)
            raise OSError(f"{self.baseFilename} is no file of ours")
        os.fchmod(fd, 0o600)
        return open(fd, "a", encoding=self.encoding, errors=self.errors)


def _is_own_directory(directory: Path) -> bool:
    """Whether `directory` is there, is no link, and belongs to us: a foreign repository may bring one along."""
    try:
        status = directory.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()


class MaskingFormatter(logging.Formatter):
    """Writes UTC times, and masks secrets in the whole text, tracebacks included, whoever logs them."""

    def __init__(self, secrets: Iterable[str]) -> None:
        super().__init__(_FORMAT, datefmt="%Y-%m-%dT%H:%M:%S")
        self.converter = time.gmtime
        self._secrets = tuple(secret for secret in secrets if secret)

    def mask(self, secret: str) -> None:
        """Mask one more from now on."""
        if secret and secret not in self._secrets:
            self._secrets += (secret,)

    def format(self, record: logging.LogRecord) -> str:
        """Return `record` as text without secrets."""
        text = super().format(record)
        for secret in self._secrets:
            text = text.replace(secret, "********")
        return text


class RateLimit(logging.Filter):
    """Lets the same warning pass a few times a minute, then counts; errors and bugs always pass.

    The same: one logger and one message before its arguments are filled in.
    """

    def __init__(
        self, *, burst: int = 5, period_s: float = 60.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__()
        self._burst = burst
        self._period_s = period_s
        self._clock = clock
        self._seen: dict[tuple[str, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether `record` is written; the first one of a new period says how many were not."""
        if record.levelno != logging.WARNING:
            return True
        key = (record.name, str(record.msg))
        now = self._clock()
        since, count = self._seen.get(key, (now, 0))
        if now - since >= self._period_s:
            if count > self._burst:
                record.msg = (
                    f"{record.getMessage()} ({count - self._burst} more like it were left out)"
                )
                record.args = ()
            since, count = now, 0
        self._seen[key] = (since, count + 1)
        return count < self._burst


def setup(path: Path, level: str, *, to_stderr: bool, secrets: Iterable[str] = ()) -> None:
    """Send what the program logs to `path`, and to stderr as well where wanted. Replaces an earlier setup."""
    formatter = MaskingFormatter(secrets)
    handlers: list[logging.Handler] = [LateFileHandler(path)]
    if to_stderr:
        handlers.append(logging.StreamHandler(sys.stderr))
    for handler in handlers:
        handler.setFormatter(formatter)
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
        old.close()
    gate = _Gate(handlers)
    gate.addFilter(RateLimit())
    root.addHandler(gate)
    root.setLevel(level)
    logging.getLogger("httpx").setLevel(max(logging.WARNING, logging.getLevelName(level)))
    logging.getLogger("httpcore").setLevel(logging.WARNING)
    logging.captureWarnings(capture=True)


def mask(secret: str) -> None:
    """Mask a secret that came after `setup`: a token that was renewed."""
    for gate in logging.getLogger().handlers:
        for handler in gate.handlers if isinstance(gate, _Gate) else ():
            if isinstance(handler.formatter, MaskingFormatter):
                handler.formatter.mask(secret)


class _Gate(logging.Handler):
    """One rate limit before all handlers, so that each line is counted once."""

    def __init__(self, handlers: list[logging.Handler]) -> None:
        super().__init__()
        self.handlers = handlers

    def emit(self, record: logging.LogRecord) -> None:
        for handler in self.handlers:
            handler.handle(record)

    def close(self) -> None:
        for handler in self.handlers:
            handler.close()
        super().close()
