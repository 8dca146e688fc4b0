# {} -> ["a.b:80", 80, {"x": ["1"], "y": ["2"]}, "a=b+c", "http://a/b/c", "a%20b/", ["1", "2"], "t", 1, true, 1, "<x k=\"v\"><y>z</y></x>", "https://a.b:80/p/q#f", "[s]\na = 1\nb = yes\n\n[new]\nk = v\n\n", ["r", "a", "a"]]
from urllib.parse import urlparse, parse_qs, urlencode, urljoin, quote, unquote, urlunparse, urlsplit, parse_qsl
import xml.etree.ElementTree as ET
import configparser
import tomllib
import io


def run():
    u = urlparse("https://a.b:80/p/q?x=1&y=2#f")
    root = ET.fromstring("<r><a id='1'>t</a><a id='2'/></r>")
    cp = configparser.ConfigParser()
    cp.read_string("[s]\na = 1\nb = yes\n")
    el = ET.Element("x", {"k": "v"})
    ET.SubElement(el, "y").text = "z"
    cp["new"] = {"k": "v"}
    out = io.StringIO()
    cp.write(out)
    return [u.netloc, u.port, parse_qs(u.query), urlencode({"a": "b c"}), urljoin("http://a/b/", "c"), quote("a b/"), [a.get("id") for a in root.findall("a")], root.find("a").text, cp.getint("s", "a"), cp["s"].getboolean("b"), tomllib.loads("a = 1")["a"], ET.tostring(el, encoding="unicode"), u._replace(query="").geturl(), out.getvalue(), [e.tag for e in root.iter()]]
