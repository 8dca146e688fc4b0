# {} -> [{"x": 1, "y": 2}, {"x": 1, "y": 2}, [["x", 1], ["y", 2]], true, "A", "A", true, "A", null]
class A:
    def __init__(self):
        self.x = 1
        self.y = 2

    def to_dict(self):
        return dict(self.__dict__)


def run():
    a = A()
    return [a.to_dict(), vars(a), sorted(vars(a).items()), callable(run), type(a).__name__, a.__class__.__name__, isinstance(True, int), A.__name__, A.__doc__]
