# {} -> ["       'x'|3.14|001", "value=3.14", "{literal} 01, 02", "1,234,567 25.6% 0xff left    |   c  |", "2024-01-02", "a 02.50", "a     2 z", "1,234.50", "1 5", "1"]
from datetime import datetime


def run(width=10):
    name, value = "x", 3.14159
    d = {"a": {"b": 1}}
    items = [1, 2]
    return [f"{name!r:>{width}}|{value:.{2}f}|{d['a']['b']:03d}", f"{value=:.2f}", f"{{literal}} {', '.join(f'{i:02}' for i in items)}", f"{1234567:,} {0.256:.1%} {255:#x} {'left':<8}| {'c':^5}|", f"{datetime(2024, 1, 2):%Y-%m-%d}", "%s %05.2f %-5s| %(a)s" % () if False else "%s %05.2f" % ("a", 2.5), "{0} {1:>5} {k}".format("a", 2, k="z"), "{:,.2f}".format(1234.5), "{0[a]} {1.real}".format({"a": 1}, 5), "%(a)s" % {"a": 1}]
