"""Text of strangers as text: the characters that steer a terminal, or turn a line around, are shown and not obeyed."""

from __future__ import annotations

import re

# C0 but tab and line ends, DEL, C1, and what overrides the direction of writing.
STEERING = re.compile("\r(?!\n)|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


def escaped(text: str) -> str:
    r"""With `\u001b` in the place of such a character: in JSON it means the same, in a log it can be read."""
    return STEERING.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
