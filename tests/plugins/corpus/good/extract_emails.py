# {"text": "Write to ann@example.com or bob.b@test.org."} -> ["ann@example.com", "bob.b@test.org"]
import re

_PATTERN = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")


def run(text: str) -> list:
    seen = set()
    result = []
    for match in _PATTERN.finditer(text):
        address = match.group(0)
        if address not in seen:
            seen.add(address)
            result.append(address)
    return result
