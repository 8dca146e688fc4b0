# {"url": "https://example.com:8080/a/b?x=1&y=2#z"} -> {"host": "example.com", "port": 8080, "query": {"x": ["1"], "y": ["2"]}}
from urllib.parse import parse_qs, urlparse


def run(url):
    parts = urlparse(url)
    return {"host": parts.hostname, "port": parts.port, "query": parse_qs(parts.query)}
