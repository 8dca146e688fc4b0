# {} -> ["enter", "body", "exit", "suppressed"]
from contextlib import contextmanager, suppress


@contextmanager
def section(log):
    log.append("enter")
    try:
        yield log
    finally:
        log.append("exit")


def run():
    log = []
    with section(log) as inner:
        inner.append("body")
    with suppress(ZeroDivisionError):
        1 / 0
    log.append("suppressed")
    return log
