# {"n": 10} -> {"bin": "0b1010", "hex": "a", "ones": 2, "bytes": "\n"}
import struct


def run(n):
    n |= 0
    mask = 1 << 3
    return {"bin": bin(n), "hex": f"{n:x}", "ones": bin(n & ~0).count("1"), "bytes": struct.pack("B", n).decode()}
