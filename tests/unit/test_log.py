"""Log lines reach the file when it can exist, without secrets and without storms."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from caiafs.core import log as logs

TOKEN = "s3cr3t-token"


@pytest.fixture(autouse=True)
def root_logger() -> Iterator[None]:
    """Leave the root logger as it was."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    root.handlers = []
    yield
    for handler in root.handlers:
        handler.close()
    root.handlers = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)


def test_lines_wait_until_the_directory_exists_and_then_all_are_there(tmp_path: Path):
    path = tmp_path / "caiafs" / "log"
    logs.setup(path, "INFO", to_stderr=False)
    logging.getLogger("caiafs.x").info("first")
    assert not path.parent.exists()

    path.parent.mkdir()
    logging.getLogger("caiafs.x").info("second")

    lines = path.read_text().splitlines()
    assert [line.rpartition(" ")[2] for line in lines] == ["first", "second"]
    assert path.stat().st_mode & 0o777 == 0o600


def test_an_unwritable_log_does_not_stop_the_program(tmp_path: Path):
    (tmp_path / "log").mkdir()
    logs.setup(tmp_path / "log", "INFO", to_stderr=False)

    logging.getLogger("caiafs.x").warning("nobody reads this")

    assert (tmp_path / "log").is_dir()


def test_secrets_are_masked_in_messages_arguments_and_tracebacks(tmp_path: Path):
    logs.setup(tmp_path / "log", "INFO", to_stderr=False, secrets=[TOKEN, ""])
    log = logging.getLogger("caiafs.x")

    log.info("sent %s", {"Authorization": f"Bearer {TOKEN}"})
    try:
        raise ValueError(TOKEN)
    except ValueError:
        log.exception("broke")

    text = (tmp_path / "log").read_text()
    assert TOKEN not in text
    assert text.count("********") >= 2


def test_level_decides_and_httpx_stays_quiet(tmp_path: Path):
    logs.setup(tmp_path / "log", "DEBUG", to_stderr=False)

    logging.getLogger("caiafs.x").debug("ours")
    logging.getLogger("httpx").info("HTTP Request: GET http://govc")

    text = (tmp_path / "log").read_text()
    assert "ours" in text
    assert "HTTP Request" not in text


def test_in_the_foreground_stderr_has_the_lines_too(tmp_path: Path, capsys):
    logs.setup(tmp_path / "log", "INFO", to_stderr=True)

    logging.getLogger("caiafs.x").info("hello")

    assert "INFO caiafs.x: hello" in capsys.readouterr().err
    assert "INFO caiafs.x: hello" in (tmp_path / "log").read_text()


class TestRateLimit:
    def passed(self, limit: logs.RateLimit, level: int, text: str, *args: object) -> str | None:
        record = logging.LogRecord("n", level, "f", 1, text, args, None)
        return record.getMessage() if limit.filter(record) else None

    def test_a_storm_of_one_warning_is_cut_and_counted(self):
        now = [0.0]
        limit = logs.RateLimit(burst=2, period_s=60, clock=lambda: now[0])
        storm = [self.passed(limit, logging.WARNING, "no %s", i) for i in range(10)]
        now[0] = 61.0

        after = self.passed(limit, logging.WARNING, "no %s", 10)

        assert storm == ["no 0", "no 1", *[None] * 8]
        assert after == "no 10 (8 more like it were left out)"

    def test_other_warnings_and_errors_pass(self):
        limit = logs.RateLimit(burst=1, clock=lambda: 0.0)
        self.passed(limit, logging.WARNING, "a")

        assert self.passed(limit, logging.WARNING, "a") is None
        assert self.passed(limit, logging.WARNING, "b") == "b"
        assert self.passed(limit, logging.ERROR, "a") == "a"


def test_the_log_is_rotated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(logs, "MAX_BYTES", 1000)
    logs.setup(tmp_path / "log", "INFO", to_stderr=False)

    for number in range(100):
        logging.getLogger("caiafs.x").info("line %d", number)

    kept = sorted(path.name for path in tmp_path.iterdir())
    assert kept == ["log", "log.1", "log.2"]
    assert all((tmp_path / name).stat().st_size <= 1000 for name in kept)
