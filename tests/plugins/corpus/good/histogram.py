# {"values": [1, 2, 2, 7], "width": 5} -> {"0-4": 3, "5-9": 1}
from collections import OrderedDict


def run(values, width=5):
    buckets = OrderedDict()
    for v in sorted(values):
        low = v // width * width
        label = "{}-{}".format(low, low + width - 1)
        buckets.setdefault(label, 0)
        buckets[label] += 1
    return buckets
