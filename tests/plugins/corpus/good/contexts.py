# {} -> [["<a>", "<b>", "x", "</b>", "</a>"], ["in", "ValueError"], "hi\n"]
from contextlib import contextmanager, suppress, closing, redirect_stdout, ExitStack, nullcontext
import io


class Timer:
    def __init__(self):
        self.log = []

    def __enter__(self):
        self.log.append("in")
        return self

    def __exit__(self, exc_type, exc, tb):
        self.log.append(exc_type.__name__ if exc_type else "out")
        return exc_type is ValueError


@contextmanager
def tag(name, out):
    out.append(f"<{name}>")
    try:
        yield out
    finally:
        out.append(f"</{name}>")


def run():
    out = []
    with tag("a", out), tag("b", out):
        out.append("x")
    t = Timer()
    with t:
        raise ValueError("x")
    with suppress(KeyError):
        {}["a"]
    buf = io.StringIO()
    with redirect_stdout(buf):
        print("hi")
    return [out, t.log, buf.getvalue()]
