# {} -> [[0, 1, 2], [10.0, 15.0], [1, 2, 3], 4, [["a", "a"], ["b"]]]
from typing import Iterator, Generator
import itertools


def naturals() -> Iterator[int]:
    n = 0
    while True:
        yield n
        n += 1


def averager() -> Generator[float, float, str]:
    total = count = 0
    avg = 0.0
    try:
        while True:
            x = yield avg
            total += x
            count += 1
            avg = total / count
    except GeneratorExit:
        pass
    finally:
        total = 0


def chain(*its):
    for it in its:
        yield from it


def run():
    g = averager()
    next(g)
    a = [g.send(10), g.send(20)]
    g.close()
    return [list(itertools.islice(naturals(), 3)), a, list(chain([1], (2,), {3})), sum(x for x in range(4) if x % 2), [list(g) for k, g in itertools.groupby("aab")]]
