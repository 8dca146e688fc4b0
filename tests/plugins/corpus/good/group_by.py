# {"rows": [{"k": "a", "v": 1}, {"k": "b", "v": 2}, {"k": "a", "v": 3}]} -> {"a": 4, "b": 2}
from collections import defaultdict
from itertools import groupby
from operator import itemgetter


def run(rows):
    totals = defaultdict(int)
    for row in rows:
        totals[row["k"]] += row["v"]
    again = {k: sum(r["v"] for r in g) for k, g in groupby(sorted(rows, key=itemgetter("k")), key=itemgetter("k"))}
    assert again == dict(totals)
    return totals
