# {"a": "x\ny\n", "b": "x\nz\n"} -> ["-y", "+z"]
import difflib


def run(a: str, b: str) -> list[str]:
    lines = difflib.unified_diff(a.splitlines(), b.splitlines(), lineterm="", n=0)
    return [line for line in lines if not line.startswith(("---", "+++", "@@"))]
