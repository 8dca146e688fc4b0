"""Hosts and ports as policy compares them: one spelling for each, and patterns that match what they show."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence

from agentd.policy.patterns import PatternError

_LOOPBACK = "loopback"
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_NUMBER = re.compile(r"0x[0-9a-f]*|[0-9]+")
_LONGEST = 253
_LOOPBACK_HOST = rf"localhost|127\.\d{{1,3}}\.\d{{1,3}}\.\d{{1,3}}|{re.escape('[::1]')}"


def host_port(host: str, port: int) -> str:
    """`HOST:PORT` in the one spelling that rules are compared with. `ValueError` says what is wrong with it."""
    if not 1 <= port <= 65535:
        raise ValueError(f"{port} is no port")
    return f"{_canonical(host)}:{port}"


def split_target(target: str) -> tuple[str, int]:
    """Host and port of `HOST:PORT` or `[IPV6]:PORT`. `ValueError` says what is wrong."""
    host, colon, port = target.rpartition(":")
    if not colon or not re.fullmatch(r"[0-9]{1,5}", port):
        raise ValueError(f"{target!r} is not HOST:PORT")
    if host.startswith("[") and host.endswith("]"):
        return host[1:-1], int(port)
    if ":" in host:
        raise ValueError(f"{target!r}: an IPv6 address stands in brackets")
    return host, int(port)


def is_loopback(host: str) -> bool:
    """Whether a host is this machine by what it is called; what a name resolves to does not count."""
    try:
        return re.fullmatch(_LOOPBACK_HOST, _canonical(host)) is not None
    except ValueError:
        return False


def host_pattern(globs: Sequence[str]) -> re.Pattern[str]:
    """Matches `HOST:PORT` under one of: `name:443`, `*.domain:443` (not the domain itself), `192.0.2.7:8000`,
    `[2001:db8::1]:8000`, `loopback:*`, `*:*`. A port is a number or `*`."""
    return re.compile("|".join(_glob(glob) for glob in globs))


def _glob(glob: str) -> str:
    host, colon, port = glob.strip().lower().rpartition(":")
    if not colon or not re.fullmatch(r"\*|[1-9][0-9]{0,4}", port):
        raise PatternError(f"{glob!r} lacks its port; write HOST:PORT, or HOST:* for every port")
    ports = r"\d{1,5}" if port == "*" else port
    if host == "*":
        return rf".*:{ports}"
    if host == _LOOPBACK:
        return rf"(?:{_LOOPBACK_HOST}):{ports}"
    wide, name = ("(?:[^:]*[.])", host[2:]) if host.startswith("*.") else ("", host)
    if "*" in name or "?" in name or "/" in name:
        raise PatternError(f"{glob!r}: `*` stands for a whole host, or before a domain as in `*.example.com:443`")
    try:
        canonical = _canonical(name[1:-1] if name.startswith("[") and name.endswith("]") else name)
    except ValueError as error:
        raise PatternError(f"{glob!r}: {error}") from None
    if wide and (_is_address(canonical) or "." not in canonical):
        raise PatternError(f"{glob!r} is too wide; a domain has a dot, and addresses have none below them")
    return rf"{wide}{re.escape(canonical)}:{ports}"


def _canonical(host: str) -> str:
    """Lower case, without a dot at the end; IPv6 in brackets, an IPv4 inside of one as itself."""
    if not host.isascii():
        host = _in_ascii(host.lower())
    host = host.lower().removesuffix(".")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return _name(host)
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.scope_id:
        raise ValueError(f"{host!r} names an interface of this machine")
    return str(address.ipv4_mapped) if address.ipv4_mapped else f"[{address}]"


def _in_ascii(host: str) -> str:
    """As it is looked up. Letters that the two standards read differently (ß, full-width digits) are refused: policy
    would be asked about one host, and another would get what is sent."""
    try:
        ascii_form = host.encode("idna")
        same = ascii_form.decode("idna") == host
    except UnicodeError:
        same = False
    if not same:
        raise ValueError(f"{host[:60]!r} is no name of a host; write it in ASCII letters (xn--…)")
    return ascii_form.decode("ascii")


def _name(host: str) -> str:
    if len(host) > _LONGEST or not _NAME.fullmatch(host):
        raise ValueError(f"{host[:60]!r} is no name of a host")
    # 127.1, 0x7f000001 and 2130706433 are addresses to those who connect, though they do not look like one.
    if _NUMBER.fullmatch(host.rpartition(".")[2]):
        raise ValueError(f"{host[:60]!r} is an address in an unusual spelling")
    return host


def _is_address(canonical: str) -> bool:
    return canonical.startswith("[") or re.fullmatch(r"[0-9.]+", canonical) is not None
