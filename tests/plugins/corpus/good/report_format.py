# {"text": "a;b\n1;2\n3;4\n", "format": "wide"} -> ["wide", [["a", "b"], ["1", "2"], ["3", "4"]], ["one", "two"]]
import copy
import csv
import io
import textwrap
from pathlib import Path

try:
    import json
except ImportError:
    json = None


class Report:
    def __init__(self, format, obj):
        self.format = format
        self.obj = obj

    def rows(self):
        dialect = csv.Sniffer().sniff(self.obj)
        return list(csv.reader(io.StringIO(self.obj), dialect))


def run(text, format):
    report = copy.deepcopy(Report(format, text))
    wrapper = textwrap.TextWrapper()
    wrapper.width = 4
    assert copy.deepcopy(Path("a/b")).name == "b"
    return json.loads(json.dumps([report.format, report.rows(), wrapper.wrap("one two")]))
