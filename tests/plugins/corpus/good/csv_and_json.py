# {} -> [[{"name": "Ada", "age": "36"}, {"name": "Bob", "age": "41"}], "name,age\nAda,36\nBob,41\n", "{\"d\": \"2024-01-01\"}", "{\n  \"s\": [\n    1,\n    2\n  ],\n  \"x\": \"1.5\"\n}", ["name", "age"], true, {"a": 1}, {"a": 1}]
import csv
import io
import json
from decimal import Decimal
from datetime import date


class Enc(json.JSONEncoder):
    def default(self, o):
        if isinstance(o, Decimal):
            return str(o)
        if isinstance(o, set):
            return sorted(o)
        return super().default(o)


def run(text="name,age\nAda,36\nBob,41\n"):
    rows = list(csv.DictReader(io.StringIO(text)))
    out = io.StringIO()
    w = csv.DictWriter(out, fieldnames=["name", "age"], lineterminator="\n", extrasaction="ignore")
    w.writeheader()
    w.writerows(rows)
    r = csv.reader(text.splitlines(), delimiter=",", quotechar='"', quoting=csv.QUOTE_MINIMAL)
    return [rows, out.getvalue(), json.dumps({"d": date(2024, 1, 1)}, default=str), json.dumps({"x": Decimal("1.5"), "s": {2, 1}}, cls=Enc, sort_keys=True, indent=2), next(r), json.loads('{"a": 1.5}', parse_float=Decimal)["a"] + 1 == Decimal("2.5"), json.loads('{"a":1}', object_pairs_hook=dict), json.loads('{"a":1}', object_hook=lambda d: d)]
