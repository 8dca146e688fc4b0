"""Why a request ends without a result; the model is fine each time."""

from __future__ import annotations


class Aborted(Exception):
    """Everybody who waited for this forward pass has cancelled; nothing of it stands."""


class Refused(Exception):
    """The request cannot be served."""


class NoRoom(Exception):
    """The memory for keys and values is full; nothing of the batch stands."""
