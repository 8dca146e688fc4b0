# {} -> [0, 1, 4, 10]
def make_adders():
    total = 0

    def add(x):
        nonlocal total
        total += x
        return total

    return add


CALLS = 0


def run():
    global CALLS
    CALLS += 1
    add = make_adders()
    values = [0]
    for step in (1, 3, 6):
        values.append(add(step))
    if (count := len(values)) != 4:
        raise AssertionError(count)
    return values
