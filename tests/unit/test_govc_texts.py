"""Commit messages and authors in the server's alphabet."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from caiafs.backends.govc import texts
from caiafs.core.types import Signature

messages = st.one_of(st.text(max_size=300), st.text("ab \\\n\r\té€😀x0", max_size=60)).filter(
    lambda message: message.strip()
)


@given(messages)
@example("Save\n\nCaiafs-Message: escaped")
@example("back\\slash é")
@example("é\nCaiafs-Message: escaped\n")
@example("x\ud800y")
def test_every_message_comes_back(message):
    encoded = texts.encode_message(message)

    assert texts.decode_message(encoded) == message
    assert re.fullmatch(r"[\x20-\x7e\n\r\t]+", encoded)


def test_a_plain_message_goes_as_it_is():
    assert texts.encode_message("Save a\\b\n\nX: y\n") == "Save a\\b\n\nX: y\n"


def test_the_mark_of_an_escaped_message_joins_its_trailers():
    encoded = texts.encode_message("Ändere\n\nCaiafs-Operation: w-1-2\n")

    assert encoded.endswith("\n\nCaiafs-Operation: w-1-2\nCaiafs-Message: escaped\n")


def test_a_message_too_long_keeps_its_trailers():
    message = "Save\n" + "x" * 200_000 + "\n\nCaiafs-Operation: w-1-2\nCaiafs-Host: h\n"

    encoded = texts.encode_message(message)

    assert len(encoded) <= texts.MESSAGE_BYTES
    assert encoded.startswith("Save\n")
    assert texts.names_operation(encoded, "w-1-2")
    assert "Caiafs-Host: h" in encoded


def test_trailers_too_long_keep_the_operation():
    trailers = "Caiafs-Path: x\n" * 20_000
    encoded = texts.encode_message(f"Save\n\nCaiafs-Operation: w-1-2\n{trailers}")

    assert len(encoded) <= texts.MESSAGE_BYTES
    assert texts.names_operation(encoded, "w-1-2")


def test_an_operation_is_found_by_its_whole_line():
    message = "Save\n\nCaiafs-Operation: w-1-22\n"

    assert texts.names_operation(message, "w-1-22")
    assert not texts.names_operation(message, "w-1-2")
    assert not texts.names_operation("about Caiafs-Operation: w-1-22", "w-1-22")


@pytest.mark.parametrize(
    ("name", "email", "expected"),
    [
        ("Ada", "ada@example.org", ("Ada", "ada@example.org")),
        ("Ada", "ada@host", ("Ada", "ada@host")),
        ("Ada", "not an address", ("Ada", "not-an-address@caiafs.invalid")),
        ("Ada", "", ("Ada", "unknown@caiafs.invalid")),
        ("Ada", "a" * 300 + "@example.org", ("Ada", "a" * 60 + "@caiafs.invalid")),
        ("", "ada@host", ("unknown", "ada@host")),
        ("A <x>\nparent 0", "ada@host", ("A  x  parent 0", "ada@host")),
    ],
)
def test_an_author_becomes_acceptable(name, email, expected):
    encoded = texts.encode_author(Signature(name, email, 0))

    assert re.sub(" +", " ", encoded[0]) == re.sub(" +", " ", expected[0])
    assert encoded[1] == expected[1]
