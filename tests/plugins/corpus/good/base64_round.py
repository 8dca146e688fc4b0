# {"text": "hé"} -> {"coded": "aMOp", "same": true}
import base64


def run(text: str) -> dict:
    coded = base64.b64encode(text.encode()).decode("ascii")
    return {"coded": coded, "same": base64.b64decode(coded).decode() == text}
