# {} -> "abcde"
import string

_tmp = string.ascii_lowercase
ALPHABET = _tmp[:5]
del _tmp
__all__ = ["run"]
__version__ = "1.0"
__author__ = "me"
assert len(ALPHABET) == 5


def run():
    return ALPHABET
