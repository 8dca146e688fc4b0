"""Finds keys, tokens and passwords in a text by their form, in time that grows with its length only."""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from itertools import pairwise
from typing import Any

_PLACEHOLDERS = re.compile(
    r"example|placeholder|changeme|change[-_]me|replace[-_]?me|your[-_]|dummy|sample|redacted|insert[-_]|xxxx|\*\*\*|\.\.\."
    r"|todo|fake|[<>]|\$\{|\$\(|\{\{|%\(|%s|\{\}",
    re.IGNORECASE,
)
"""Stand in texts that show what a key would look like."""
_PASSWORDS = re.compile(
    r"passw|passphrase|pwd|secret|token|test|hunter2|1234|abcd|qwerty|letmein|getenv|environ|none|null"
)
"""A value that holds one of these is what somebody called it, not what it is."""
_LOGINS = ("password", "passwd", "pass", "pw", "pwd", "secret", "token")
_RUN = re.compile(r"[A-Za-z0-9+/]{32}")
_SIGNS = re.compile(r"[^A-Za-z0-9]")
_HUNK = re.compile(r"@@ -\d+(?:,(\d+))? \+(\d+)(?:,(\d+))? @@")
MARK = re.compile(r"\[left out: [A-Za-z ]{1,40}\]")
"""What `redact` puts in the place of a secret."""
_APART = "\n\0\n"
"""Between texts that are looked at together: no form of a secret goes on over it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Where a secret stands, and of which kind it is; never what it is."""

    kind: str
    start: int
    end: int
    line: int
    """From 1."""


@dataclass(frozen=True, slots=True)
class _Form:
    """One kind of secret. `hints`: one of them stands in every text that can hold it, in lower case."""

    kind: str
    hints: tuple[str, ...]
    pattern: re.Pattern[str]
    """Its group `s`, else the whole match, is the secret."""
    real: Callable[[str], bool]


def _varied(value: str) -> bool:
    """No stand-in: not one character again and again, and no word that says so."""
    return len(set(value)) >= 8 and not _PLACEHOLDERS.search(value)


def _block(value: str) -> bool:
    return _RUN.search(value) is not None


def _password(value: str) -> bool:
    """As mixed as a password that a machine or a careful person made."""
    if not _varied(value) or _PASSWORDS.search(value.casefold()):
        return False
    return (len(set(map(_kind, value))) >= 3 and _bits(value) >= 3.0) or _drawn(value)


def _bare_password(value: str) -> bool:
    """As `_password`, where no quotes say that it is a value and no name of something else."""
    return _password(value) and any(c.isdigit() for c in value) and (_bits(value) >= 3.3 or _drawn(value))


def _short_password(value: str) -> bool:
    """Bare and shorter: names of things have words in them, of several letters each."""
    return _password(value) and any(c.isdigit() for c in value) and _steps(value) >= 5


def _drawn(value: str, least: int = 3) -> bool:
    """Letters and at least so many digits in no order, as a machine draws them."""
    digits = sum(map(str.isdigit, value))
    return len(value) >= 20 and value.isalnum() and least <= digits < len(value) and _steps(value) * 4 >= len(value)


def _steps(value: str) -> int:
    """How often the kind of its characters changes."""
    return sum(a != b for a, b in pairwise(map(_kind, value)))


def _kind(character: str) -> int:
    return 0 if character.islower() else 1 if character.isupper() else 2 if character.isdigit() else 3


def _token(value: str) -> bool:
    return _varied(value) and _drawn(_SIGNS.sub("", value), least=1)


def _bearer(value: str) -> bool:
    return _password(value) or _token(value)


def _login(value: str) -> bool:
    return not _PLACEHOLDERS.search(value) and value.casefold() not in _LOGINS and value[0] not in "$%{"


def _encoded_login(value: str) -> bool:
    """NAME:PASSWORD in base64."""
    try:
        name, colon, password = base64.b64decode(value, validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        return False
    return bool(name and colon and password) and password.isprintable() and _login(password)


def _bits(value: str) -> float:
    """Shannon's entropy, a character."""
    counts = Counter(value).values()
    return -sum(n / len(value) * math.log2(n / len(value)) for n in counts)


def _form(kind: str, hints: str, pattern: str, real: Callable[[str], bool] = _varied) -> _Form:
    return _Form(kind, tuple(hints.split()), re.compile(pattern), real)


_KEYS = ("api", "access", "auth", "encryption", "private", "signing", "app", "master", "account", "hmac", "session")
# The first letter stands before the rest, and by itself: so the places where a name can begin are found fast.
_NAME = (
    r"[AaCcEeHhMmPpSsTt](?i:(?:assw(?:or)?d|assphrase|wd|ecret|oken|redential"
    rf"|(?:{'|'.join(each[1:] for each in _KEYS)})[_-]?key)s?"
    r"(?:[_-]?(?:key|value)(?:[_-]?base)?)?)"
)
_NAMES = "passwd password passphrase pwd secret token credential " + " ".join(
    f"{each}key {each}_key {each}-key" for each in _KEYS
)
_TYPE = r"(?::[ \t]?[A-Za-z&][A-Za-z\[\]. |&]{0,40}?(?=[ \t]{0,4}=))?"
_ASSIGNED = (
    rf"{_NAME}(?:[\"'\]]{{0,2}}[ \t]{{0,8}}{_TYPE}[ \t]{{0,4}}(?::=|=>|=|:)|[\"'](?:,|[ \t]{{1,4}}value=))"
    r"[ \t]{0,8}[bru]{0,2}"
)
_END = r"(?=[\s,;)\]}&]|$)"

_PREFIXES = (
    *(
        "gsk_",
        "xai-",
        "r8_",
        "pplx-",
        "HRKU-",
        "sntrys_",
        "sntryu_",
        "lin_api_",
        "ntn_",
        "secret_",
        "figd_",
        "dckr_pat_",
    ),
    *(
        "dckr_oat_",
        "dp.pt.",
        "dp.st.",
        "pul-",
        "pscale_tkn_",
        "pscale_pw_",
        "pscale_oauth_",
        "sbp_",
        "nfp_",
        "fm1_",
        "fm2_",
    ),
    *("glc_", "glsa_", "rubygems_", "oy2", "key-", "tvly-", "phx_", "PMAK-", "dt0c01."),
)
"""With which keys and tokens of services begin."""

# Every repetition has a bound, or begins where no longer one could have begun: no text makes the search slow.
_FORMS = (
    _form("AWS key id", "akia asia abia acca", r"(?<![A-Za-z0-9])(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}(?![A-Za-z0-9])"),
    _form(
        "AWS secret key",
        "aws",
        r"(?i:aws.{0,20}?(?:secret|key).{0,20}?)[\"'\s:=>]{1,6}(?P<s>[A-Za-z0-9/+]{40})(?![A-Za-z0-9/+=])",
    ),
    _form("GitHub token", "ghp_ gho_ ghu_ ghs_ ghr_", r"(?<![A-Za-z0-9])gh[pousr]_[A-Za-z0-9]{36,255}"),
    _form("GitHub token", "github_pat_", r"(?<![A-Za-z0-9])github_pat_[A-Za-z0-9_]{36,255}"),
    _form(
        "GitLab token",
        "glpat- gldt- glrt- glptt- glft- glsoat- glcbt- glagent- glimt-",
        r"(?<![A-Za-z0-9])gl(?:pat|dt|rt|ptt|ft|soat|cbt|agent|imt)-[A-Za-z0-9_.-]{20,100}",
    ),
    _form(
        "Slack token", "xoxa- xoxb- xoxe- xoxo- xoxp- xoxr- xoxs-", r"(?<![A-Za-z0-9])xox[abeoprs]-[A-Za-z0-9-]{20,250}"
    ),
    _form("Slack token", "xapp-", r"(?<![A-Za-z0-9])xapp-\d-[A-Za-z0-9-]{20,250}"),
    _form(
        "Slack webhook",
        "hooks.slack.com",
        r"hooks\.slack\.com/(?:services|workflows|triggers)/(?P<s>[A-Za-z0-9/]{30,100})",
    ),
    _form(
        "Stripe key", "sk_live_ rk_live_ sk_test_ rk_test_", r"(?<![A-Za-z0-9])[rs]k_(?:live|test)_[A-Za-z0-9]{16,250}"
    ),
    _form("webhook secret", "whsec_", r"(?<![A-Za-z0-9])whsec_[A-Za-z0-9+/=]{24,100}"),
    _form("Google key", "aiza", r"(?<![A-Za-z0-9])AIza[A-Za-z0-9_-]{35}(?![A-Za-z0-9_-])"),
    _form("Google secret", "gocspx-", r"(?<![A-Za-z0-9])GOCSPX-[A-Za-z0-9_-]{28}"),
    _form("Google token", "ya29.", r"(?<![A-Za-z0-9])ya29\.[A-Za-z0-9_-]{30,300}"),
    _form(
        "model server key",
        "sk-",
        r"(?<![A-Za-z0-9-])sk-(?:(?:proj|svcacct|admin|ant|or)-[A-Za-z0-9_-]{24,250}|[A-Za-z0-9]{32,100})(?![A-Za-z0-9])",
    ),
    _form("Hugging Face token", "hf_", r"(?<![A-Za-z0-9_])hf_[A-Za-z0-9]{34,40}(?![A-Za-z0-9_])"),
    _form("npm token", "npm_", r"(?<![A-Za-z0-9_])npm_[A-Za-z0-9]{36}(?![A-Za-z0-9_])"),
    _form("PyPI token", "pypi-", r"(?<![A-Za-z0-9])pypi-AgE[A-Za-z0-9_-]{50,300}"),
    _form("SendGrid key", "sg.", r"(?<![A-Za-z0-9])SG\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}"),
    _form("Telegram token", ":aa", r"(?<![A-Za-z0-9])\d{8,10}:AA[A-Za-z0-9_-]{33}(?![A-Za-z0-9_-])"),
    _form("Twilio key", "sk", r"SK(?<![A-Za-z0-9]SK)[0-9a-f]{32}(?![A-Za-z0-9])"),
    _form("Twilio key", "twilio", r"(?i:twilio).{0,40}?(?P<s>(?<![A-Za-z0-9])(?:SK)?[0-9a-f]{32}(?![A-Za-z0-9]))"),
    _form("DigitalOcean token", "_v1_", r"(?<![A-Za-z0-9])do[opr]_v1_[a-f0-9]{64}"),
    _form("Shopify token", "shpat_ shpca_ shppa_ shpss_", r"(?<![A-Za-z0-9])shp(?:at|ca|pa|ss)_[a-fA-F0-9]{32}"),
    _form("Databricks token", "dapi", r"(?<![A-Za-z0-9])dapi[a-f0-9]{32}(?![a-f0-9])"),
    _form("Azure storage key", "accountkey=", r"(?i:AccountKey=)(?P<s>[A-Za-z0-9+/]{86}==)"),
    _form("Azure access signature", "sig=", r"[?&]sig=(?P<s>[A-Za-z0-9%+/]{40,100}(?:%3D|=))"),
    _form("Azure DevOps token", "_pat", r"(?i:_pat)[\"']?[ \t]?[=:][ \t]?[\"']?(?P<s>[a-z0-9]{52})(?![A-Za-z0-9])"),
    _form(
        "Azure client secret",
        "q~",
        r"(?<![A-Za-z0-9_~.-])[A-Za-z0-9_~.]{3}\dQ~[A-Za-z0-9_~.-]{31,34}(?![A-Za-z0-9_~.-])",
    ),
    _form("AWS key", "amzn.mws.", r"amzn\.mws\.[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"),
    _form("AWS key", "absk", r"(?<![A-Za-z0-9])ABSK[A-Za-z0-9+/]{100,300}={0,2}"),
    _form("GitLab token", "gr1348941", r"(?<![A-Za-z0-9])GR1348941[A-Za-z0-9_-]{20,100}"),
    _form(
        "Atlassian token",
        "atatt3x atctt3x atbb",
        r"(?<![A-Za-z0-9])(?:AT[AC]TT3x[A-Za-z0-9_=-]{100,300}|ATBB[A-Za-z0-9]{28,40})(?![A-Za-z0-9])",
    ),
    _form("Discord webhook", "/api/webhooks/", r"/api/webhooks/\d{17,20}/(?P<s>[A-Za-z0-9_-]{60,80})"),
    _form(
        "Teams webhook",
        "/webhookb2/",
        r"/webhookb2/(?P<s>[0-9a-f@-]{36,80}/IncomingWebhook/[0-9a-f]{32}/[0-9a-f-]{36})",
    ),
    _form(
        "Discord token",
        "discord bot client",
        r"[MNO](?<![A-Za-z0-9_-][MNO])[A-Za-z0-9_-]{23,27}\.[A-Za-z0-9_-]{6}\.[A-Za-z0-9_-]{27,40}(?![A-Za-z0-9_-])",
    ),
    _form("Mailchimp key", "-us", r"(?<![A-Za-z0-9])[0-9a-f]{32}-us\d{1,2}(?![A-Za-z0-9])"),
    _form(
        "Vault token",
        "hvs. hvb. vault",
        r"(?<![A-Za-z0-9])hv[sb]\.[A-Za-z0-9_-]{24,300}|(?i:vault.{0,20}?[\"'\s:=])s\.[A-Za-z0-9]{24}(?![A-Za-z0-9])",
    ),
    _form("Terraform token", ".atlasv1.", r"(?<![A-Za-z0-9])[A-Za-z0-9]{14}\.atlasv1\.[A-Za-z0-9_=-]{60,70}"),
    _form("Airtable token", "pat", r"pat(?<![A-Za-z0-9]pat)[A-Za-z0-9]{14}\.[0-9a-f]{64}(?![A-Za-z0-9])"),
    _form("Asana token", "1/", r"(?<![A-Za-z0-9/])1/\d{16}:[0-9a-f]{32}(?![A-Za-z0-9])"),
    _form("New Relic key", "nral nrak-", r"(?<![A-Za-z0-9])(?:[0-9a-f]{36}NRAL|NRAK-[A-Z0-9]{27})(?![A-Za-z0-9])"),
    _form("Dropbox token", "sl.", r"(?<![A-Za-z0-9.])sl\.[A-Za-z0-9_-]{130,250}"),
    _form(
        "Square token",
        "eaaa sq0",
        r"(?<![A-Za-z0-9])(?:EAAA[A-Za-z0-9_-]{60}|sq0(?:csp|atp)-[A-Za-z0-9_-]{22,43})(?![A-Za-z0-9_-])",
    ),
    _form("Braintree token", "access_token$", r"access_token\$production\$[0-9a-z]{16}\$[0-9a-f]{32}"),
    _form(
        "service token",
        " ".join(_PREFIXES).lower(),
        rf"(?<![A-Za-z0-9_-])(?:{'|'.join(map(re.escape, _PREFIXES))})(?P<s>[A-Za-z0-9_+/=-]{{26,400}})",
        _token,
    ),
    _form("key of an application", "base64:", r"(?i:key)[\"']?[=:]\s?[\"']?base64:(?P<s>[A-Za-z0-9+/]{40,100}={0,2})"),
    _form("age key", "age-secret-key-1", r"AGE-SECRET-KEY-1[A-Z0-9]{58}"),
    _form("agentd key", "agentd_", r"(?<![A-Za-z0-9])agentd_[A-Za-z0-9_-]{32,100}"),
    _form(
        "private key",
        "private key",
        r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----"
        r"(?:(?!-----)[A-Za-z0-9+/=:,.\s\\\"'|>-]){40,20000}(?:-----END[A-Z0-9 ]{1,50}-----)?",
        _block,
    ),
    _form(
        "private key",
        "private-lines:",
        r"Private-Lines: \d{1,4}\s(?P<s>[A-Za-z0-9+/=\s]{64,10000})",
        _block,
    ),
    _form("login", "basic", r"[Bb](?i:asic)[ \t](?P<s>[A-Za-z0-9+/]{8,500}={0,2})", _encoded_login),
    _form(
        "login",
        "auth",
        r"(?i:_auth|[\"']auth[\"'])[ \t]{0,4}[=:][ \t]{0,4}[\"']?(?P<s>[A-Za-z0-9+/]{8,500}={0,2})",
        _encoded_login,
    ),
    _form("login", "login", r"\blogin\s{1,4}[^\s]{1,100}\s{1,8}password\s{1,4}(?P<s>[^\s]{6,200})", _login),
    _form(
        "login",
        "curl",
        r"\bcurl\b[^\n]{0,200}?[ \t](?:-u|--user)[ =]?[\"']?[^\s:\"']{1,80}:(?P<s>[^\s\"']{6,200})",
        _login,
    ),
    _form("login", "sshpass", r"\bsshpass[ \t]{1,4}-p[ \t]?[\"']?(?P<s>[^\s\"']{6,100})", _login),
    _form(
        "password hash",
        "$",
        r"(?m:^)[A-Za-z_][A-Za-z0-9._-]{0,40}:(?P<s>\$(?:apr1|1|5|6|y|2[aby])\$[./A-Za-z0-9$=,]{20,200})",
    ),
    _form("password", _NAMES, rf"{_NAME}>(?P<s>[^\s<>]{{8,200}})</", _password),
    _form(
        "web token",
        "eyj",
        r"(?<![A-Za-z0-9_-])eyJ[A-Za-z0-9_-]{10,4000}\.eyJ[A-Za-z0-9_-]{10,8000}\.[A-Za-z0-9_-]{16,2000}",
    ),
    _form(
        "bearer token",
        "bearer authorization",
        r"(?i:\bbearer|authorization[\"']?[ \t]?[:=,][ \t]?[\"']?token)[ \t](?P<s>[A-Za-z0-9+/=_.~-]{16,2000})",
        _bearer,
    ),
    _form(
        "login in an address",
        "://",
        r"(?<![A-Za-z0-9+.-])[A-Za-z][A-Za-z0-9+.-]{1,20}://[^\s/:@\"'<>]{0,100}:(?P<s>[^\s/:@\"'<>]{3,200})@[A-Za-z0-9\[]",
        _login,
    ),
    _form("password", _NAMES, rf"{_ASSIGNED}(?P<q>[\"'`])(?P<s>[^\s\"'`]{{8,200}})(?P=q)", _password),
    _form(
        "password",
        _NAMES,
        rf"{_ASSIGNED}(?P<s>[A-Za-z0-9+/=_!@#%^*~-]{{16,1000}}+){_END}",
        _bare_password,
    ),
    _form(
        "password",
        "passwd password passphrase pwd",
        r"[Pp](?i:assw(?:or)?d|assphrase|wd)[\"'\]]{0,2}[ \t]{0,8}[=:][ \t]{0,8}"
        r"(?P<s>[A-Za-z0-9+/=_!@#%^&*~.-]{8,40}+)(?=[\s,;)]|$)",
        _short_password,
    ),
)


def scan(text: str, known: Collection[str] = ()) -> list[Finding]:
    """The secrets in a text, in their order and none inside another. `known`: values that are secret in any form."""
    # Of several that stand in one place the longest counts, and of the same ones the first form.
    found = sorted(_spans(text, _folded(text), known), key=lambda span: (span[0], -span[1]))
    findings: list[Finding] = []
    line, place, covered = 1, 0, 0
    for start, end, kind in found:
        if end <= covered:
            continue
        line, place = line + text.count("\n", place, start), start
        findings.append(Finding(kind=kind, start=max(start, covered), end=end, line=line))
        covered = end
    return findings


def redact(text: str, known: Collection[str] = ()) -> str:
    """The text with a mark in the place of each secret."""
    pieces, place = [], 0
    for finding in scan(text, known):
        pieces += [text[place : finding.start], f"[left out: {finding.kind}]"]
        place = finding.end
    return "".join([*pieces, text[place:]]) if pieces else text


def secrets_of(diff: str, known: Collection[str] = ()) -> Iterator[tuple[str, int, str]]:
    """(file, line, kind) of what a unified diff adds: of what stands in an added line, and nowhere on its old side."""
    path, number, old, new = "", 0, 0, 0
    before: list[str] = []
    after: dict[str, list[tuple[int, str, bool]]] = {}
    for line in diff.split("\n"):
        if (hunk := _HUNK.match(line)) and old <= 0 and new <= 0:
            old, number, new = int(hunk[1] or 1), int(hunk[2]), int(hunk[3] or 1)
        elif old <= 0 and new <= 0:  # between hunks; inside one a line of the file may look like this
            path = line[4:].removeprefix("b/").rstrip("\t") if line.startswith("+++ ") else path
        elif line.startswith("+"):
            after.setdefault(path, []).append((number, line[1:], True))
            number, new = number + 1, new - 1
        elif line.startswith("-"):
            before.append(line[1:])
            old -= 1
        elif not line.startswith("\\"):
            before.append(line[1:])
            after.setdefault(path, []).append((number, line[1:], False))
            number, old, new = number + 1, old - 1, new - 1
    there = "\n".join(before)
    for name, lines in after.items():
        text = "\n".join(line for _, line, _ in lines)
        for finding in scan(text, known):
            last = finding.line + text.count("\n", finding.start, finding.end)
            added = [place for place, _, is_added in lines[finding.line - 1 : last] if is_added]
            if added and text[finding.start : finding.end] not in there:
                yield name, added[0], finding.kind


class Redactor:
    """Puts marks in the place of secrets, in texts and in JSON; `known` gives values that are secret in any form."""

    def __init__(self, known: Callable[[], Collection[str]] = tuple) -> None:
        self.known = known

    def __call__(self, text: str) -> str:
        return redact(text, self.known())

    def clean(self, value: Any) -> Any:
        """A JSON value with every text in it redacted, but for names of fields and members of an `Enum`."""
        known = self.known()
        # Few values hold a secret, and one look at all texts together is quicker than one at each.
        text = _APART.join(_texts(value))
        if next(_spans(text, _folded(text), known), None) is None:
            return value

        def walk(each: Any) -> Any:
            if isinstance(each, str):
                return each if isinstance(each, Enum) else redact(each, known)
            if isinstance(each, Mapping):
                return {name if _is_word(name) else walk(name): walk(inner) for name, inner in each.items()}
            return [walk(inner) for inner in each] if isinstance(each, (list, tuple)) else each

        return walk(value)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        if not isinstance(value, Enum):
            yield value
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            if not _is_word(name):
                yield from _texts(name)
            yield from _texts(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _texts(inner)


def _is_word(name: object) -> bool:
    """Like the name of a field, which says nothing even where somebody has such a password."""
    return isinstance(name, str) and name.islower() and name.replace("_", "").isalpha()


def _folded(text: str) -> str:
    return text.casefold() if text.isascii() else text.lower()


def _spans(text: str, folded: str, known: Collection[str]) -> Iterator[tuple[int, int, str]]:
    for value in known:
        start = text.find(value)
        while start >= 0:
            yield start, start + len(value), "secret of the vault"
            start = text.find(value, start + len(value))
    for form in _FORMS:
        for hint in form.hints:
            if hint in folded:
                yield from _matches(form, text)
                break


def _matches(form: _Form, text: str) -> Iterator[tuple[int, int, str]]:
    name = "s" if "s" in form.pattern.groupindex else 0
    for match in form.pattern.finditer(text):
        if form.real(match[name]):
            yield match.start(name), match.end(name), form.kind
