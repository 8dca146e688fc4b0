# {} -> [true, 10.0, 50.0]
def singleton(cls):
    instances = {}

    def get(*args, **kwargs):
        if cls not in instances:
            instances[cls] = cls(*args, **kwargs)
        return instances[cls]

    return get


@singleton
class Config:
    def __init__(self, value=1):
        self.value = value


class Celsius:
    def __get__(self, obj, owner):
        return obj._c

    def __set__(self, obj, value):
        obj._c = float(value)

    def __set_name__(self, owner, name):
        self.name = name


class Temp:
    c = Celsius()

    def __init__(self, c):
        self.c = c

    def __getattr__(self, name):
        if name == "f":
            return self.c * 9 / 5 + 32
        raise AttributeError(name)


def run():
    t = Temp(10)
    return [Config(2) is Config(3), t.c, t.f]
