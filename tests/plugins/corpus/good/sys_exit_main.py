# {} -> {"n": 1, "args": true, "rl": true, "size": true, "i": "x"}
import sys
import json


def main(text="a"):
    return {"n": len(text), "args": len(sys.argv) >= 0, "rl": sys.getrecursionlimit() > 10, "size": sys.getsizeof("a") > 0, "i": sys.intern("x")}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1])))
