# {} -> [2, {"a": 2}]
COUNT = 0
CACHE: dict[str, int] = {}


def bump():
    global COUNT
    COUNT += 1
    return COUNT


def run():
    bump()
    CACHE["a"] = bump()
    return [COUNT, CACHE]
