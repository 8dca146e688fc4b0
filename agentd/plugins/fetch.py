"""`http.get` for plugins: a page from a server that policy allows, bounded in bytes and time, never redirected."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from agentd.backends.http_lines import Limits, Lines, address_of
from agentd.errors import ModelError
from agentd.policy.hosts import is_loopback
from agentd.sandbox.job import RequestRefused

MAX_BYTES = 500_000
"""Of a page."""
SECONDS = 20.0
_MAX_URL = 4_000
_MAX_HEADERS = 20
_MAX_HEADER = 1_000
_HEADER = re.compile(r"[A-Za-z0-9-]{1,60}")
_OURS = frozenset({"host", "content-length", "transfer-encoding", "connection", "upgrade", "te", "accept-encoding"})
_CHARSET = re.compile(r"charset=\"?(utf-8|iso-8859-1|latin-1|us-ascii|windows-1252)", re.IGNORECASE)


def server_of(url: str) -> tuple[str, int]:
    """Host and port of an address that may be fetched at all. Raises `RequestRefused`."""
    try:
        parts = urlsplit(url)
        host, port = address_of(url)
    except ValueError as error:
        raise RequestRefused(f"{url[:200]!r} is no address: {error}", kind="ValueError") from None
    plain = url.isascii() and url.isprintable() and " " not in url and len(url) <= _MAX_URL
    if not plain or parts.username is not None or not host or not port:
        raise RequestRefused(f"{url[:200]!r} is no address that is fetched", kind="ValueError")
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(host)):
        raise RequestRefused(f"{url[:200]} is not fetched: beyond this machine only https is spoken")
    return host, port


def fetch(url: str, headers: Mapping[str, object], cancel: threading.Event | None = None) -> dict[str, Any]:
    """`status`, `headers` (names in lower case) and `text` of the answer, whatever its status. The address that the
    name leads to is looked at once connected, before anything is sent. Raises `RequestRefused` and `Cancelled`."""
    parts = urlsplit(url)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    sent = {"User-Agent": "agentd", **_sound(headers)}
    lines = Lines(f"{parts.scheme}://{parts.netloc}", at=parts.netloc, public=True)
    try:
        limits = Limits(time.monotonic() + SECONDS, MAX_BYTES, cancel)
        with lines.exchange("GET", path, headers=sent, body=None, limits=limits) as answer:
            data = b"".join(answer.pieces())
            told = {name.lower(): value[:_MAX_HEADER] for name, value in list(answer.headers.items())[:50]}
            charset = _CHARSET.search(told.get("content-type", ""))
            text = data.decode(charset[1] if charset else "utf-8", "replace")
            return {"status": answer.status, "headers": told, "text": text}
    except ModelError as error:
        raise RequestRefused(error.message, kind="ConnectionError") from None
    finally:
        lines.close()


def _sound(headers: Mapping[str, object]) -> dict[str, str]:
    """Headers that say something about the question alone."""
    sound: dict[str, str] = {}
    if len(headers) > _MAX_HEADERS:
        raise RequestRefused(f"{len(headers)} headers; {_MAX_HEADERS} may be sent", kind="ValueError")
    for name, value in headers.items():
        bad = not _HEADER.fullmatch(name) or name.lower() in _OURS or name.lower().startswith("proxy-")
        if bad or not isinstance(value, str) or not (value.isascii() and value.isprintable()):
            raise RequestRefused(f"the header {name[:60]!r} cannot be sent", kind="ValueError")
        if len(value) > _MAX_HEADER:
            raise RequestRefused(f"the header {name} has {len(value)} characters", kind="ValueError")
        sound[name] = value
    return sound
