# {"values": [5, 2, 8, 1]} -> {"sorted": [1, 2, 5, 8], "depth": 3}
class Node:
    __slots__ = ("value", "left", "right")

    def __init__(self, value, left=None, right=None):
        self.value = value
        self.left = left
        self.right = right

    def insert(self, value):
        side = "left" if value < self.value else "right"
        child = getattr(self, "left") if side == "left" else getattr(self, "right")
        if child is None:
            if side == "left":
                self.left = Node(value)
            else:
                self.right = Node(value)
        else:
            child.insert(value)

    def __iter__(self):
        if self.left:
            yield from self.left
        yield self.value
        if self.right:
            yield from self.right

    def depth(self):
        return 1 + max((c.depth() for c in (self.left, self.right) if c), default=0)


def run(values):
    root = Node(values[0])
    for v in values[1:]:
        root.insert(v)
    return {"sorted": list(root), "depth": root.depth()}
