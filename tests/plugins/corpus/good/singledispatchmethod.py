# {} -> ["0003", "2.50", "x"]
from functools import singledispatchmethod


class Formatter:
    @singledispatchmethod
    def fmt(self, value):
        return str(value)

    @fmt.register
    def _(self, value: int):
        return f"{value:04d}"

    @fmt.register(float)
    def _(self, value):
        return f"{value:.2f}"


def run():
    f = Formatter()
    return [f.fmt(3), f.fmt(2.5), f.fmt("x")]
