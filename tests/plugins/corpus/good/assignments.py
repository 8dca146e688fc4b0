# {} -> [[1, 3], {"a": [1, 2], "b": [3, 4]}, [[1, 3], [2, 4]], [1, 2, 3], 6, {"a": 1, "b": 2, "c": 3}, [1, 3], [0, 1, "a", "b"], [9, "x", 5, 6, 7, 8, 1], 5, 16, true, true, [1, 8], "ab", 3, 15, 255, 1000, 1000.0, "\\d", [1, 5, 7, 11, 13, 17, 19], true, ["1"], [1], true, false, [1, 2, 3, 4], ["a", "b"], [0, "a"]]
def run():
    m = [[1, 2], [3, 4]]
    a, *b, c = range(5)
    (x, y), z = (1, 2), 3
    d = {"a": 1} | {"b": 2}
    d |= {"c": 3}
    s = {1, 2} ^ {2, 3}
    g = [*range(2), *"ab"]
    xs = list(range(10))
    xs[2:5] = ["x"]
    del xs[0]
    xs[-1], xs[0] = xs[0], xs[-1]
    k = 5 if xs else 6
    n = 0
    for i in range(5):
        if i == 3:
            break
        if i == 1:
            continue
        n += i
    else:
        n = 100
    n <<= 2
    n |= 1
    n //= 2
    n **= 2
    return [[r[0] for r in m], {k: v for k, v in zip("ab", m)}, [[r[i] for r in m] for i in range(2)], b, x + y + z, d, sorted(s), g, xs, k, n, 1 < 2 < 3, not [], xs[::-1][:2], "a" "b", 0b11, 0o17, 0xff, 1_000, 1e3, r"\d", [i for i in range(20) if i % 2 if i % 3], {*()} == set(), list(map(str, [1])), list(filter(None, [0, 1])), all([]), any([0]), [y for x in m for y in x], sorted({"b": 1, "a": 2}), enumerate("a").__next__()]
