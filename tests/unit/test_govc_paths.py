"""Document paths as names on a server: one form each, reversible."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from caiafs.backends.govc.dialects.contract import Contract
from caiafs.backends.govc.dialects.v1 import V1
from caiafs.backends.govc.dialects.v2 import V2
from caiafs.backends.govc.paths import (
    LongName,
    decode_path,
    encode_path,
    escape,
    is_long,
    unescape,
)
from caiafs.core.types import DocPath

RULES = {"v1": V1("r").rules, "v2": V2("r").rules, "contract": Contract("r").rules}

component = st.one_of(
    st.binary(min_size=1, max_size=255).filter(lambda c: not set(c) & {0, 0x2F}),
    st.text("ab.%:\\~é\x7f\n ", min_size=1, max_size=9).map(lambda t: t.encode()),
    st.sampled_from([b"caiafs-escaped", b"caiafs-long", b"caiafs-parts", b"caiafs-mark"]),
).filter(lambda c: c not in {b".", b".."})
doc_paths = st.lists(component, min_size=1, max_size=15).map(b"/".join).map(DocPath)


@pytest.mark.parametrize("dialect", RULES)
@given(path=doc_paths)
@example(DocPath(b"caiafs-escaped/a"))
@example(DocPath(b"%2E"))
@example(DocPath(b"a..%2E"))
@example(DocPath(b"/".join([b"n" * 255] * 15)))
def test_every_path_comes_back(dialect, path):
    rules = RULES[dialect]

    name = encode_path(path, rules)

    decoded = decode_path(name, rules)
    if is_long(name):
        assert isinstance(decoded, LongName)
    else:
        assert decoded == path


@given(doc_paths)
def test_every_escape_comes_back(path):
    assert unescape(escape(path)) == path


@given(doc_paths, doc_paths)
def test_two_paths_never_share_a_name(one, other):
    rules = RULES["v2"]

    assert (encode_path(one, rules) == encode_path(other, rules)) == (one == other)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        (b"documents/a/metadata.json", "documents/a/metadata.json"),
        ("Übung/é.txt".encode(), "Übung/é.txt"),
        (b"a/.hidden", "a/.hidden"),
        (b".gitignore", "caiafs-escaped/.gitignore"),
        (b"foo../bar", "caiafs-escaped/foo.%2E/bar"),
        (b"c:x", "caiafs-escaped/c:x"),
        (b"caf\xe9", "caiafs-escaped/caf%E9"),
        (b"caiafs-parts/x", "caiafs-escaped/caiafs-parts/x"),
        (b"100%", "100%"),
    ],
)
def test_v2_names_are_as_documented(path, name):
    assert encode_path(DocPath(path), RULES["v2"]) == name


@pytest.mark.parametrize("path", [b".gitignore", b"foo../bar", b"c:x"])
def test_v1_takes_what_v2_refuses(path):
    assert encode_path(DocPath(path), RULES["v1"]) == path.decode()


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/etc/passwd",
        "../x",
        "a/../b",
        "a//b",
        "a/",
        "a/./b",
        "a\0b",
        "n" * 256,
        "caiafs-escaped/plain",
        "caiafs-escaped/%2e",
        "caiafs-escaped/..",
        "caiafs-escaped/a/%2E%2E",
        "caiafs-long/xyz",
        "caiafs-parts/x",
        "caiafs-mark",
    ],
)
def test_a_name_that_is_nobodys_document_is_not_one(name):
    assert decode_path(name, RULES["v2"]) is None
