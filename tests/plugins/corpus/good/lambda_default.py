# {} -> [[1, 2, 3], "1-2['z']", [[1], {"b": 2}], "make", null]
def make(n, /, *args, sep=",", **kw):
    return sep.join(map(str, (n, *args))) + str(sorted(kw))


def run():
    fs = [lambda x, i=i: x + i for i in range(3)]
    return [[f(1) for f in fs], make(1, 2, sep="-", z=1), (lambda *a, **k: (a, k))(1, b=2), make.__name__, make.__doc__]
