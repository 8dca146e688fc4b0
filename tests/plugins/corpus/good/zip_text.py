# {"text": "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"} -> {"smaller": true, "same": true}
import zlib


def run(text):
    packed = zlib.compress(text.encode(), level=9)
    return {"smaller": len(packed) < len(text), "same": zlib.decompress(packed).decode() == text}
