"""Durations as Go writes them and sizes as people write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caiafs.core.durations import format_duration, format_size, parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("0s", 0.0),
        ("30s", 30.0),
        ("5m", 300.0),
        ("500ms", 0.5),
        ("1h30m", 5400.0),
        ("1.5h", 5400.0),
        (".5s", 0.5),
        ("2µs", 2e-6),
        ("2us", 2e-6),
        ("7ns", 7e-9),
        (" 30s ", 30.0),
    ],
)
def test_go_durations_are_read(text: str, seconds: float):
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "30", "s", "1d", "-5s", "5 s", "5sec", "1h30", "300000000h"])
def test_what_go_refuses_is_refused(text: str):
    with pytest.raises(ValueError, match="not a duration"):
        parse_duration(text)


@given(st.integers(min_value=0, max_value=10**15))
def test_a_shown_duration_reads_back_to_the_microsecond(microseconds: int):
    seconds = microseconds / 1e6

    assert parse_duration(format_duration(seconds)) == pytest.approx(seconds, abs=1e-6, rel=1e-9)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (5, "5s"), (0.2, "200ms"), (5400, "1h30m"), (61.5, "1m1.5s")]
)
def test_durations_are_shown_as_go_does(seconds: float, text: str):
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("512", 512),
        ("512B", 512),
        ("64KiB", 65536),
        ("1k", 1024),
        ("1.5M", 1572864),
        ("1MB", 1_000_000),
        ("4GiB", 4 << 30),
        ("1 T", 1 << 40),
    ],
)
def test_sizes_are_read(text: str, size: int):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "-1", "1Q", "MiB", "1iB", "0x10", "1 K B"])
def test_what_is_no_size_is_refused(text: str):
    with pytest.raises(ValueError, match="not a size"):
        parse_size(text)


@given(st.integers(min_value=0, max_value=1 << 50))
def test_a_shown_size_reads_back_exactly(size: int):
    assert parse_size(format_size(size)) == size
