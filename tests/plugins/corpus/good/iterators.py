# {} -> [[3, 2, 1], [[12, 10], [15, 22]], 22, [1, 2], "d"]
class Countdown:
    def __init__(self, n):
        self.n = n

    def __iter__(self):
        return self

    def __next__(self):
        if self.n <= 0:
            raise StopIteration
        self.n -= 1
        return self.n + 1


class Matrix:
    def __init__(self, rows):
        self.rows = rows

    def __matmul__(self, o):
        return Matrix([[sum(a * b for a, b in zip(r, c)) for c in zip(*o.rows)] for r in self.rows])

    def __getitem__(self, idx):
        i, j = idx
        return self.rows[i][j]

    def __setitem__(self, idx, v):
        i, j = idx
        self.rows[i][j] = v


class Node:
    def __init__(self, v, nxt=None):
        self.v, self.next = v, nxt


def run():
    m = Matrix([[1, 2], [3, 4]])
    m2 = m @ m
    m2[0, 0] += 5
    head = Node(1, Node(2))
    out = []
    while head:
        out.append(head.v)
        head = head.next
    return [list(Countdown(3)), m2.rows, m2[1, 1], out, next(iter(Countdown(0)), "d")]
