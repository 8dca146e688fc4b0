# {} -> [[[1]], "{'a': 1}", true, true]
from pprint import pformat
from copy import deepcopy, copy
import copy as cp
import io
import keyword


def run():
    print("a", 1, sep="-", end="!\n")
    print()
    a = [[1]]
    b = deepcopy(a)
    b[0][0] = 2
    return [a, pformat({"a": 1}), cp.copy(a) == a, keyword.iskeyword("if")]
