# {} -> [[1, 2, 3], 3]
from dataclasses import dataclass
from typing import Self


class Tree:
    class Node:
        def __init__(self, key):
            self.key = key
            self.left = None
            self.right = None

    def __init__(self):
        self.root = None
        self._size = 0

    def insert(self, key) -> Self:
        def go(node):
            if node is None:
                self._size += 1
                return Tree.Node(key)
            if key < node.key:
                node.left = go(node.left)
            elif key > node.key:
                node.right = go(node.right)
            return node

        self.root = go(self.root)
        return self

    def __iter__(self):
        yield from self._walk(self.root)

    def _walk(self, node):
        if node:
            yield from self._walk(node.left)
            yield node.key
            yield from self._walk(node.right)

    def __len__(self):
        return self._size


def run(values=(3, 1, 2)):
    t = Tree()
    for v in values:
        t.insert(v)
    return [list(t), len(t)]
