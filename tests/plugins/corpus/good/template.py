# {"name": "Ann", "items": ["a", "b"]} -> "Dear Ann,\n  * a\n  * b\nBye"
import string
import textwrap

TEMPLATE = string.Template("Dear $name,\n$items\nBye")


def run(name, items):
    listed = "\n".join(f"* {item}" for item in items)
    return TEMPLATE.substitute(name=name, items=textwrap.indent(listed, "  "))
