# {} -> ["int 1", "str a", "seq:int 1,str b", "seq:int 2", "unknown 1.5", "int True"]
from functools import singledispatch


@singledispatch
def describe(value):
    return f"unknown {value!r}"


@describe.register
def _(value: int):
    return f"int {value}"


@describe.register(str)
def _(value):
    return f"str {value}"


@describe.register(list)
@describe.register(tuple)
def _(value):
    return "seq:" + ",".join(describe(v) for v in value)


def run():
    return [describe(1), describe("a"), describe([1, "b"]), describe((2,)), describe(1.5), describe(True)]
