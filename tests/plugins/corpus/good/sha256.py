# {"text": "hello\n"} -> "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03"
import hashlib


def run(text: str, algorithm: str = "sha256") -> str:
    functions = {"md5": hashlib.md5, "sha1": hashlib.sha1, "sha256": hashlib.sha256}
    try:
        make = functions[algorithm]
    except KeyError as exc:
        raise ValueError(f"unknown algorithm: {algorithm}") from exc
    digest = make()
    digest.update(text.encode("utf-8"))
    return digest.hexdigest()
