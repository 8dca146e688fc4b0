# {"text": "Hello, World!", "shift": 3} -> "Khoor, Zruog!"
from string import ascii_lowercase, ascii_uppercase


def run(text: str, shift: int) -> str:
    def rotate(alphabet):
        return alphabet[shift % 26:] + alphabet[:shift % 26]

    table = str.maketrans(ascii_lowercase + ascii_uppercase, rotate(ascii_lowercase) + rotate(ascii_uppercase))
    return text.translate(table)
