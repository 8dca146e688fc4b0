# {"text": "The cat and the dog"} -> {"the": 2, "cat": 1, "and": 1, "dog": 1}
import re
from collections import Counter

WORD = re.compile(r"[a-z']+", re.IGNORECASE)


def run(text: str, top: int = 10) -> dict:
    words = [w.lower() for w in WORD.findall(text)]
    counts = Counter(words)
    return dict(counts.most_common(top))
