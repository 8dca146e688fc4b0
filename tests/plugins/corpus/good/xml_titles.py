# {"text": "<r><i id='1'><t>One</t></i><i id='2'><t>Two</t></i></r>"} -> {"1": "One", "2": "Two"}
import xml.etree.ElementTree as ET


def run(text: str) -> dict:
    root = ET.fromstring(text)
    return {item.get("id"): item.findtext("t", default="") for item in root.iter("i")}
