# {} -> [[4, 3, 2, 3], ["move 1,2", "go n", "many 1 [2, 3, 4]", "ABC", 2, "none", 1.5, [1, {"z": 2}], "?"], ["origin", "y=3", "diag", "other"]]
def classify(cmd):
    match cmd:
        case {"type": "move", "x": int(x), "y": int(y)}:
            return f"move {x},{y}"
        case ["go", direction] | ["walk", direction]:
            return f"go {direction}"
        case [first, *rest] if len(rest) > 2:
            return f"many {first} {rest}"
        case str() as s if s.startswith("a"):
            return s.upper()
        case (1 | 2) as n:
            return n
        case None:
            return "none"
        case float(v):
            return v
        case {"k": v, **others}:
            return [v, others]
        case _:
            return "?"


class Point:
    __match_args__ = ("x", "y")

    def __init__(self, x, y):
        self.x, self.y = x, y


def where(p):
    match p:
        case Point(0, 0):
            return "origin"
        case Point(x=0, y=y):
            return f"y={y}"
        case Point(x, y) if x == y:
            return "diag"
    return "other"


def run():
    out = []
    data = [1, 2, 3, 4]
    while (n := len(data)) > 1:
        out.append(n)
        data.pop()
    if any((hit := x) > 2 for x in [1, 3]):
        out.append(hit)
    return [out, [classify(c) for c in ({"type": "move", "x": 1, "y": 2}, ["go", "n"], [1, 2, 3, 4], "abc", 2, None, 1.5, {"k": 1, "z": 2}, object)], [where(Point(a, b)) for a, b in ((0, 0), (0, 3), (2, 2), (1, 2))]]
