# {} -> [[["s", 6], ["i", 4]], {"a": {"b": 1}}, [2, 0, 1], ["b", "c"], [1, "a"], [1, 3, 4, 5], 2, {"abc": 1}, {"q": 0, "r": 1}, {"b": 2, "a": 1}, [{"n": 1}, {"n": 2}], [1, 3], ["m", "i"], {"m": 1, "i": 4, "s": 5, "p": 2, "z": 1}, 3, 11, 1]
from collections import Counter, defaultdict, deque, OrderedDict, ChainMap, UserDict, UserList
import heapq
import bisect
from operator import itemgetter, attrgetter, mul, methodcaller
import operator


class CaseDict(UserDict):
    def __setitem__(self, k, v):
        super().__setitem__(k.lower(), v)


class DD(dict):
    def __missing__(self, key):
        self[key] = v = len(self)
        return v


class LRU(OrderedDict):
    def __init__(self, cap):
        super().__init__()
        self.cap = cap

    def put(self, k, v):
        self[k] = v
        self.move_to_end(k)
        if len(self) > self.cap:
            self.popitem(last=False)


def run():
    c = Counter("mississippi")
    c.update("ss")
    c["z"] += 1
    dd = defaultdict(lambda: defaultdict(int))
    dd["a"]["b"] += 1
    dq = deque([1, 2, 3], maxlen=3)
    dq.appendleft(0)
    dq.rotate(1)
    lru = LRU(2)
    for k in "abc":
        lru.put(k, 1)
    h = []
    for item in [(3, "c"), (1, "a")]:
        heapq.heappush(h, item)
    xs = [1, 3, 5]
    bisect.insort(xs, 4)
    cd = CaseDict()
    cd["ABC"] = 1
    d = DD()
    d["q"], d["r"]
    return [c.most_common(2), {k: dict(v) for k, v in dd.items()}, list(dq), list(lru), heapq.heappop(h), xs, bisect.bisect_left(xs, 4), dict(cd), dict(d), dict(ChainMap({"a": 1}, {"b": 2})), sorted([{"n": 2}, {"n": 1}], key=itemgetter("n")), heapq.nlargest(2, [1, 5, 3], key=lambda x: -x), list(c.elements())[:2], c - Counter("s"), operator.add(1, 2), sum(map(mul, [1, 2], [3, 4])), heapq.merge([1, 4], [2]).__next__()]
