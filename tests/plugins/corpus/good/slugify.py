# {"text": "Crème Brûlée  & more!"} -> "creme-brulee-more"
import re
import unicodedata


def run(text):
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode("ascii")
    return re.sub(r"[^a-z0-9]+", "-", plain.lower()).strip("-")
