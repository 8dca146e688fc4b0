# {} -> 4
"""Module.

>>> run(2)
4
"""
import doctest
import unittest


def run(x=2):
    """Square.

    >>> run(3)
    9
    """
    return x * x


class TestRun(unittest.TestCase):
    def test_it(self):
        self.assertEqual(run(2), 4)


if __name__ == "__main__":
    doctest.testmod()
    unittest.main()
