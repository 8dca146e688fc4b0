# {} -> 3
try:
    import numpy as np
    HAVE_NUMPY = True
except ImportError:
    np = None
    HAVE_NUMPY = False


def run():
    return sum([1, 2]) if np is None else 3
