# {"a": [[1, 2], [3, 4]], "b": [[1, 0], [0, 1]]} -> [[1, 2], [3, 4]]
class Matrix:
    def __init__(self, rows):
        self.rows = [list(r) for r in rows]

    def __matmul__(self, other):
        return Matrix([[sum(x * y for x, y in zip(row, col)) for col in zip(*other.rows)] for row in self.rows])

    def __getitem__(self, index):
        i, j = index
        return self.rows[i][j]

    def __setitem__(self, index, value):
        i, j = index
        self.rows[i][j] = value

    def __eq__(self, other):
        return isinstance(other, Matrix) and self.rows == other.rows

    def __repr__(self):
        return f"Matrix({self.rows!r})"


def run(a, b):
    product = Matrix(a) @ Matrix(b)
    product[0, 0] += 0
    assert product == Matrix(a), f"{product}"
    return product.rows
