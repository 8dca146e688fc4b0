# {} -> [1, true, true, true, "little"]
import sys

LIMIT = sys.maxsize


def run():
    best = sys.maxsize
    for x in [3, 1, 2]:
        best = min(best, x)
    return [best, LIMIT > 10, sys.float_info.epsilon < 1, sys.version_info >= (3, 8), sys.byteorder]
