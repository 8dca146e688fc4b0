# {"seed": 1} -> true
import random


def run(seed):
    first = random.Random(seed)
    second = random.Random(seed)
    return [first.randint(1, 6) for _ in range(5)] == [second.randint(1, 6) for _ in range(5)]
