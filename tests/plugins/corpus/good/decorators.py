# {} -> [3, 6765, "fib", true, 0, "ok", true, "card1", 32, 6, 4]
from functools import wraps, lru_cache, partial, reduce, cached_property, total_ordering, cache
import time


def counter():
    count = 0

    def inc(by=1):
        nonlocal count
        count += by
        return count

    return inc


def memo(fn):
    store = {}

    @wraps(fn)
    def wrapper(*args, **kwargs):
        key = (args, tuple(sorted(kwargs.items())))
        if key not in store:
            store[key] = fn(*args, **kwargs)
        wrapper.calls += 1
        return store[key]

    wrapper.calls = 0
    wrapper.cache = store
    return wrapper


def retry(times=3, exceptions=(Exception,)):
    def deco(fn):
        @wraps(fn)
        def inner(*a, **k):
            last = None
            for attempt in range(times):
                try:
                    return fn(*a, **k)
                except exceptions as exc:
                    last = exc
            raise last
        return inner
    return deco


@memo
def fib(n):
    return n if n < 2 else fib(n - 1) + fib(n - 2)


@lru_cache(maxsize=None)
def fact(n: int) -> int:
    return 1 if n == 0 else n * fact(n - 1)


attempts = []


@retry(times=2, exceptions=(ValueError,))
def flaky():
    attempts.append(1)
    if len(attempts) < 2:
        raise ValueError("no")
    return "ok"


@total_ordering
class Card:
    def __init__(self, rank):
        self.rank = rank

    def __eq__(self, other):
        if not isinstance(other, Card):
            return NotImplemented
        return self.rank == other.rank

    def __lt__(self, other):
        return self.rank < other.rank

    def __hash__(self):
        return hash(self.rank)

    @cached_property
    def name(self):
        return f"card{self.rank}"


def run():
    c = counter()
    c()
    fact(5)
    info = fact.cache_info()
    fact.cache_clear()
    return [c(2), fib(20), fib.__name__, fib.calls > 0, info.hits, flaky(), Card(3) >= Card(2), Card(1).name, partial(pow, 2)(5), reduce(lambda a, b: a * b, [1, 2, 3], 1), max([Card(1), Card(4)]).rank]
