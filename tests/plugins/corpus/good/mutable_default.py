# {"n": 3} -> [[0], [0, 1], [0, 1, 2]]
def run(n, _seen=None):
    _seen = [] if _seen is None else _seen
    out = []
    for i in range(n):
        _seen += [i]
        out.append(list(_seen))
    return out
