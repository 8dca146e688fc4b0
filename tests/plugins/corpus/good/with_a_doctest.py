# {} -> 4
import doctest


def run(x=2):
    return x * x


def _test():
    doctest.testmod()


if __name__ == "__main__":
    _test()
