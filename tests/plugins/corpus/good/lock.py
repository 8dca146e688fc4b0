# {} -> 1
import threading

_lock = threading.Lock()
_cache = {}


def run(x=1):
    with _lock:
        _cache[x] = x
    return _cache[x]
