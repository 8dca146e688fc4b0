# {"rows": [{"a": 1, "b": 2}]} -> "a,b\r\n1,2\r\n"
import csv
import io
from typing import Any, Dict, List


def run(rows: List[Dict[str, Any]]) -> str:
    if not rows:
        return ""
    out = io.StringIO()
    writer = csv.DictWriter(out, fieldnames=list(rows[0].keys()))
    writer.writeheader()
    for row in rows:
        writer.writerow(row)
    return out.getvalue()
