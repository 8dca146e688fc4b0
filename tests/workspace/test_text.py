"""Bytes become text and the same bytes again; what is no text is recognised."""

from __future__ import annotations

import codecs
import gzip
import os
import random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agentd.errors import ToolFailed
from agentd.workspace import text


@given(
    data=st.one_of(
        st.binary(max_size=300), st.text().map(str.encode), st.text().map(lambda t: t.encode("utf-16", "replace"))
    )
)
@example(data=codecs.BOM_UTF8)
@example(data=codecs.BOM_UTF8 * 2 + b"x")
@example(data=codecs.BOM_UTF16_LE + b"\x00\xd8")
@example(data=codecs.BOM_UTF16_BE + b"\x00")
@example(data=codecs.BOM_UTF32_LE + "a".encode("utf-32-le"))
def test_any_bytes_survive_the_round_trip(data: bytes) -> None:
    decoded, encoding = text.decode(data)
    assert encoding.encode(decoded) == data


@pytest.mark.parametrize(
    ("data", "name", "decoded"),
    [
        (b"plain\n", "utf-8", "plain\n"),
        ("größe\n".encode(), "utf-8", "größe\n"),
        ("größe\n".encode("utf-8-sig"), "utf-8-sig", "größe\n"),
        ("größe\n".encode("latin-1"), "latin-1", "größe\n"),
        (codecs.BOM_UTF16_LE + "größe 😀\r\n".encode("utf-16-le"), "utf-16", "größe 😀\r\n"),
        (codecs.BOM_UTF16_BE + "größe\n".encode("utf-16-be"), "utf-16", "größe\n"),
        (b"", "utf-8", ""),
    ],
)
def test_the_encoding_is_found(data: bytes, name: str, decoded: str) -> None:
    assert text.decode(data)[0] == decoded
    assert text.detect(data).name == name
    assert not text.is_binary(data)


def test_a_character_that_the_encoding_lacks_is_named() -> None:
    encoding = text.detect("größe".encode("latin-1"))
    assert not encoding.can("5 €")
    with pytest.raises(ToolFailed, match=r"latin-1, which has no '€' \(U\+20AC\)"):
        encoding.encode("5 €")


PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(64))


@pytest.mark.parametrize(
    ("name", "data", "kind"),
    [
        ("a.txt", b"text\n" * 100, "text"),
        ("a.bin", b"", "text"),
        ("log.ansi", b"\x1b[31mred\x1b[0m ok\n", "text"),
        ("x.png", PNG, "PNG image"),
        ("renamed.txt", PNG, "PNG image"),
        ("x.pdf", b"%PDF-1.7\n1 0 obj", "PDF document"),
        ("x.gz", gzip.compress(b"hello", mtime=0), "gzip archive"),
        ("x.sqlite", b"SQLite format 3\0" + bytes(84), "SQLite database"),
        ("x.wasm", b"\0asm\1\0\0\0", "application/wasm"),
        ("core", bytes(100), "binary"),
        ("utf16-without-mark", "hello".encode("utf-16-le"), "binary"),
        ("x.dat", random.Random(1).randbytes(4000).replace(b"\0", b"\1"), "binary"),
    ],
)
def test_kinds_of_files_are_told_apart(name: str, data: bytes, kind: str) -> None:
    assert text.kind_of(name, data) == kind


@given(content=st.text(alphabet="aé漢😀\n ", min_size=1, max_size=60), cut=st.integers(0, 240))
def test_a_sample_cut_inside_a_character_is_still_text(content: str, cut: int) -> None:
    for data in (content.encode(), content.encode("utf-16")):
        assert not text.is_binary(data[: max(cut, 4)])
    part = text.decode_part(content.encode()[:cut])
    assert content.startswith(part)


@pytest.mark.parametrize(
    ("content", "newline", "lines"),
    [
        ("", "\n", 0),
        ("a", "\n", 1),
        ("a\n", "\n", 1),
        ("a\nb", "\n", 2),
        ("a\r\nb\r\n", "\r\n", 2),
        ("a\r\nb\r\nc\n", "\r\n", 3),
        ("a\nb\nc\r\n", "\n", 3),
        ("a\rb\r", "\r", 2),
        ("a\rb", "\r", 2),
        ("\n\n", "\n", 2),
        ("form\x0cfeed\u2028sep\n", "\n", 1),
    ],
)
def test_line_endings_and_lines_are_counted(content: str, newline: str, lines: int) -> None:
    assert text.newline_of(content) == newline
    assert text.count_lines(content) == lines


def test_text_takes_the_line_ending_asked_for() -> None:
    assert text.with_newlines("a\r\nb\nc", "\r\n") == "a\r\nb\r\nc"
    assert text.with_newlines("a\r\nb\nc", "\n") == "a\nb\nc"


def test_a_large_text_is_judged_by_its_head() -> None:
    assert not text.is_binary(b"a" * text.SAMPLE + os.urandom(10))
