# {} -> 20
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

DEBUG = False
if DEBUG:
    LEVEL = 10
else:
    LEVEL = 20


def run():
    return LEVEL
