"""Why a request ends without a result; the model is fine each time."""

from __future__ import annotations


class Aborted(Exception):
    """Everybody who waited for this forward pass has cancelled; nothing of it stands."""


class Refused(Exception):
    """The request cannot be served."""


class TooLong(Refused):
    """The prompt has more `tokens` than the `context` has room for."""

    def __init__(self, tokens: int, context: int) -> None:
        super().__init__(f"the prompt has {tokens} tokens: that exceeds the available context size of {context}")
        self.tokens = tokens
        self.context = context


class NoRoom(Exception):
    """The memory for keys and values is full; nothing of the batch stands."""
