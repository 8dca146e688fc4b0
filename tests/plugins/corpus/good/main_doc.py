# {} -> [1]
# -*- coding: utf-8 -*-
"""Doc."""
from __future__ import annotations


def run(x: int | None = None) -> list[int]:
    return [x or 1]


if __name__ == "__main__":
    import argparse

    parser = argparse.ArgumentParser()
    parser.add_argument("x", type=int)
    print(run(parser.parse_args().x))
