# {} -> {"count": 3, "ids": [1, 2, 3], "total": 6}
class Counter:
    total = 0
    _next_id = 0

    def __init__(self):
        Counter._next_id += 1
        self.id = Counter._next_id
        self.__secret = self.id
        Counter.total += self.__secret

    def __call__(self):
        return self.__secret


def run():
    counters = [Counter() for _ in range(3)]
    return {"count": len(counters), "ids": [c.id for c in counters], "total": sum(c() for c in counters)}
