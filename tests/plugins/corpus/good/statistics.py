# {"numbers": [1, 2, 3, 4]} -> {"mean": 2.5, "median": 2.5, "stdev": 1.290994, "min": 1, "max": 4}
import statistics
from math import isfinite


def run(numbers):
    values = [n for n in numbers if isfinite(n)]
    if len(values) < 2:
        raise ValueError("need two numbers")
    return {
        "mean": statistics.mean(values),
        "median": statistics.median(values),
        "stdev": round(statistics.stdev(values), 6),
        "min": min(values),
        "max": max(values),
    }
