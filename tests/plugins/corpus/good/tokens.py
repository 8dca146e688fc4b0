# {} -> [[["ID", "x", 0, [0, 1], "x"], ["ASSIGN", ":=", 2, [2, 4], ":="], ["NUMBER", "3.5", 5, [5, 8], "3.5"], ["OP", "+", 9, [9, 10], "+"], ["ID", "y", 11, [11, 12], "y"]], {"user": "a.b", "domain": "c.de"}, "b a", "a2b44", ["a", "b", "c"], [["a", "1"], ["b", "2"]], "a\\.b", true, "\n", true, ["bb", 2], ["a", "-"], 0, 8, "a.b@c.de", 2, "yx", true]
import re

TOKEN_SPEC = [("NUMBER", r"\d+(\.\d*)?"), ("ASSIGN", r":="), ("ID", r"[A-Za-z]+"), ("OP", r"[+\-*/]"), ("SKIP", r"[ \t]+"), ("MISMATCH", r".")]
TOK_REGEX = "|".join(f"(?P<{name}>{pattern})" for name, pattern in TOKEN_SPEC)
EMAIL_RE = re.compile(r"""
    ^(?P<user>[\w.+-]+)   # user
    @(?P<domain>[\w-]+(?:\.[\w-]+)+)$
""", re.VERBOSE | re.IGNORECASE)


def tokenize(code):
    for mo in re.finditer(TOK_REGEX, code):
        kind = mo.lastgroup
        value = mo.group(kind)
        if kind == "SKIP":
            continue
        if kind == "MISMATCH":
            raise RuntimeError(value)
        yield kind, value, mo.start(), mo.span(), mo[0]


def run():
    m = EMAIL_RE.match("a.b@c.de")
    return [list(tokenize("x := 3.5 + y")), m.groupdict() if m else None, re.sub(r"(\w+) (\w+)", r"\2 \1", "a b"), re.sub(r"\d+", lambda m: str(int(m.group()) * 2), "a1b22"), re.split(r"[,;]\s*", "a, b;c"), re.findall(r"(\w)(\d)", "a1b2"), re.escape("a.b"), bool(re.fullmatch(r"[0-9A-F]{2}", "0F")), EMAIL_RE.pattern[:1], EMAIL_RE.flags > 0, re.subn("a", "b", "aa"), re.compile("(a)(b)?").match("a").groups(default="-"), m.start("user"), m.end(), m.string, m.re.groups, re.compile("x").sub("y", "xx", count=1), re.I == re.IGNORECASE]
