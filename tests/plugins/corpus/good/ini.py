# {"text": "[a]\nx = 1\ny = two\n"} -> {"a": {"x": 1, "y": "two"}}
import configparser


def convert(value):
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            continue
    return {"true": True, "false": False}.get(value.lower(), value)


def run(text):
    parser = configparser.ConfigParser()
    parser.read_string(text)
    return {section: {k: convert(v) for k, v in parser.items(section)} for section in parser.sections()}
