"""Which language plugins are written in here: whatever of it changes, each plugin has to be proven again."""

from __future__ import annotations

import hashlib
import platform
from functools import cache
from importlib.metadata import version
from importlib.resources import files


@cache
def language() -> str:
    """Python, RestrictedPython, and a digest of the guards and façades."""
    guest = files("agentd.sandbox").joinpath("guest")
    sources = sorted((entry.name, entry.read_bytes()) for entry in guest.iterdir() if entry.name.endswith(".py"))
    digest = hashlib.sha256(b"".join(name.encode() + source for name, source in sources)).hexdigest()
    return f"Python {platform.python_version()}, RestrictedPython {version('RestrictedPython')}, façades {digest[:12]}"
