# {"text": "[a]\nx = [1, 2]\n"} -> {"a": {"x": [1, 2]}}
import tomllib


def run(text: str) -> dict:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"bad TOML: {error}")
