# {"text": "name,age\nann,31\n"} -> [{"name": "ann", "age": "31"}]
"""Convert CSV text to a list of records."""
import csv
import io


def run(text: str) -> list[dict[str, str]]:
    """Read CSV text."""
    reader = csv.DictReader(io.StringIO(text))
    return [dict(row) for row in reader]


if __name__ == "__main__":
    print(run("a,b\n1,2\n"))
