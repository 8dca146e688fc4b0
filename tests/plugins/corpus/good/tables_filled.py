# {} -> [["a", "b", "c"], {"x": 1, "y": 2}]
NAMES = ["a"]
NAMES += ["b"]
TABLE = {}
TABLE["x"] = 1
TABLE.update({"y": 2})
NAMES.append("c")


def run():
    return [NAMES, TABLE]
