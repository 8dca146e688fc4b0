"""Bytes to text and back without losing one: encoding, byte order mark, line endings, and what is no text at all."""

from __future__ import annotations

import codecs
import mimetypes
from dataclasses import dataclass
from typing import Literal, TypeAlias

from agentd.errors import ToolFailed

Newline: TypeAlias = Literal["\n", "\r\n", "\r"]

SAMPLE = 8192
"""Bytes looked at to tell text from binary."""

_BOMS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
_MAGIC = (
    (b"\x89PNG\r\n\x1a\n", "PNG image"),
    (b"\xff\xd8\xff", "JPEG image"),
    (b"GIF8", "GIF image"),
    (b"%PDF-", "PDF document"),
    (b"PK\x03\x04", "ZIP archive"),
    (b"\x1f\x8b", "gzip archive"),
    (b"\x7fELF", "ELF program"),
    (b"SQLite format 3\0", "SQLite database"),
    (b"GGUF", "GGUF model"),
)
_CONTROL = bytes(set(range(32)) - set(b"\t\n\r\f\b\x1b")) + b"\x7f"
_HIGH_CONTROL = bytes(range(0x80, 0xA0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoding:
    """A codec and the byte order mark before the text."""

    codec: str
    bom: bytes = b""

    @property
    def name(self) -> str:
        """As people write it: utf-8, utf-8-sig, utf-16, latin-1."""
        if self.codec == "utf-8":
            return "utf-8-sig" if self.bom else "utf-8"
        return "utf-16" if self.codec.startswith("utf-16") else self.codec

    def can(self, text: str) -> bool:
        """Whether it has every character of `text`."""
        try:
            text.encode(self.codec)
        except UnicodeEncodeError:
            return False
        return True

    def encode(self, text: str) -> bytes:
        """`ToolFailed` naming the character that this encoding does not have."""
        try:
            return self.bom + text.encode(self.codec)
        except UnicodeEncodeError as error:
            char = text[error.start]
            raise ToolFailed(
                f"the file is {self.name}, which has no {char!r} (U+{ord(char):04X})", hint="use other characters"
            ) from None


UTF8 = Encoding(codec="utf-8")


def detect(data: bytes) -> Encoding:
    """The first of utf-8 and utf-16 by byte order mark, utf-8, latin-1 that reads every byte of `data`."""
    for bom, codec in _BOMS:
        if data.startswith(bom) and _reads(data[len(bom) :], codec):
            return Encoding(codec=codec, bom=bom)
    return Encoding(codec="utf-8" if _reads(data, "utf-8") else "latin-1")


def decode(data: bytes) -> tuple[str, Encoding]:
    """Text and encoding such that `encoding.encode(text) == data`; for any bytes."""
    encoding = detect(data)
    return data[len(encoding.bom) :].decode(encoding.codec), encoding


def decode_file(path: str, data: bytes) -> tuple[str, Encoding]:
    """As `decode`; `ToolFailed` for what is no text."""
    if is_binary(data):
        raise ToolFailed(f"{path} is a binary file ({kind_of(path, data)})", hint="only text can be changed")
    return decode(data)


MARK = "\ufeff"


def with_mark(said: str, encoding: Encoding) -> tuple[str, Encoding]:
    """The text with its byte order mark as the first character, as git has it in diffs."""
    return (MARK + said, UTF8) if encoding.name == "utf-8-sig" else (said, encoding)


def decode_part(data: bytes) -> str:
    """Text of a piece of a file in utf-8 or latin-1; a character that is cut at its end is left out."""
    if not _reads(data, "utf-8", final=False):
        return data.decode("latin-1")
    return codecs.getincrementaldecoder("utf-8")().decode(data.removeprefix(codecs.BOM_UTF8))


def is_binary(head: bytes) -> bool:
    """Whether a file that starts with `head` (`SAMPLE` bytes are enough) is something other than text."""
    head = head[:SAMPLE]
    if any(head.startswith(bom) for bom, codec in _BOMS if codec != "utf-8"):
        whole = head[: len(head) // 2 * 2]
        return not _reads(whole, "utf-16", final=False) or "\0" in whole.decode("utf-16", "replace")
    if any(head.startswith(magic) for magic, _ in _MAGIC) or b"\0" in head:
        return True
    odd = len(head) - len(head.translate(None, _CONTROL))
    if not _reads(head, "utf-8", final=False):
        odd += len(head) - len(head.translate(None, _HIGH_CONTROL))
    return odd * 10 > len(head)


def kind_of(name: str, head: bytes) -> str:
    """What a file is, in a few words: `text`, `PNG image`, `application/wasm`, `binary`."""
    if not is_binary(head):
        return "text"
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            return kind
    return mimetypes.guess_type(name)[0] or "binary"


def newline_of(text: str) -> Newline:
    """The line ending that most lines have; `\\n` for text without one."""
    crlf = text.count("\r\n")
    lf = text.count("\n") - crlf
    cr = text.count("\r") - crlf
    if crlf > max(lf, cr):
        return "\r\n"
    return "\r" if cr and not lf and not crlf else "\n"


def with_newlines(text: str, newline: Newline) -> str:
    """`text` with every line ending turned into `newline`."""
    plain = text.replace("\r\n", "\n")
    return plain if newline == "\n" else plain.replace("\n", newline)


def count_lines(text: str) -> int:
    """Lines as people count them: a last line without an ending counts."""
    newline = newline_of(text)
    ending = "\r" if newline == "\r" else "\n"
    return text.count(ending) + (1 if text and not text.endswith(ending) else 0)


def _reads(data: bytes, codec: str, *, final: bool = True) -> bool:
    """Whether `data` decodes; with `final` False its last character may be cut."""
    try:
        codecs.getincrementaldecoder(codec)("strict").decode(data, final)
    except UnicodeDecodeError:
        return False
    return True
