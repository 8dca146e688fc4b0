# {"n": 10} -> [0, 1, 1, 2, 3, 5, 8, 13, 21, 34]
from functools import lru_cache
from itertools import islice


@lru_cache(maxsize=None)
def fib(n):
    return n if n < 2 else fib(n - 1) + fib(n - 2)


def numbers():
    i = 0
    while True:
        yield fib(i)
        i += 1


def run(n):
    return list(islice(numbers(), n))
