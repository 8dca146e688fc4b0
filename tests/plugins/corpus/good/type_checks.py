# {} -> [true, false, true, true, "int", true, true, true, "i", true]
def run(x=None):
    return [isinstance(x, (str, type(None))), type(x) is int, type(1) == int, type([]) in (list, tuple), type(1).__name__, issubclass(bool, int), isinstance(1.0, float), type("a") is str, {int: "i", str: "s"}[type(1)], isinstance({}, dict)]
