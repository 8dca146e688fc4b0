# {} -> [[9, 2, 3], 14, "i"]
from array import array


def run():
    a = array("i", [1, 2])
    a.append(3)
    a[0] = 9
    return [list(a), sum(a), a.typecode]
