# {} -> ["xxyz", "a b c\nd e f", "a\nb", "e", "1 ${b}", "&lt;a&gt;", "&", ["apple"], 0.67, "aGk=", "2d711642", "aa", "61", 258, "0400", 256, "ab", "ab", "a", "61006200", "b600", "**x**", "a b", "hELLO wORLD", "A B_C", ["a", "b", "c"], "00012", "ss"]
import textwrap
import unicodedata
import string
import html
import difflib
import base64
import hashlib
import zlib
import binascii
import hmac
import secrets
import struct
from string import Template


def run():
    t = str.maketrans("abc", "xyz", "d")
    return ["aabcd".translate(t), textwrap.fill("a b c d e f", 5), textwrap.dedent("  a\n  b"), unicodedata.normalize("NFKD", "\u00e9").encode("ascii", "ignore").decode(), Template("$a ${b}").safe_substitute(a=1), html.escape("<a>"), html.unescape("&amp;"), difflib.get_close_matches("appel", ["apple"]), round(difflib.SequenceMatcher(None, "abc", "abd").ratio(), 2), base64.b64encode(b"hi").decode(), hashlib.sha256(b"x").hexdigest()[:8], zlib.decompress(zlib.compress(b"aa")).decode(), binascii.hexlify(b"a").decode(), struct.unpack(">H", struct.pack(">H", 258))[0], (1024).to_bytes(2, "big").hex(), int.from_bytes(b"\x01\x00", "big"), bytes.fromhex("6162").decode(), bytearray(b"ab").decode(), b"a,b".split(b",")[0].decode(), "ab".encode("utf-16-le").hex(), hmac.new(b"k", b"m", hashlib.sha256).hexdigest()[:4], "x".center(5, "*"), "a\tb".expandtabs(2), "Hello World".swapcase(), "a-b_c".replace("-", " ").title(), "abc".partition("b"), "12".zfill(5), "\u00df".casefold()]
