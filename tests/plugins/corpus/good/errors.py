# {"value": "x"} -> {"error": "ParseError", "message": "bad value: 'x'", "cause": "ValueError"}
class ParseError(Exception):
    """Something could not be read."""

    def __init__(self, value):
        super().__init__(f"bad value: {value!r}")
        self.value = value


def parse(value):
    try:
        return int(value)
    except ValueError as error:
        raise ParseError(value) from error


def run(value):
    try:
        return parse(value)
    except ParseError as error:
        return {"error": type(error).__name__, "message": str(error), "cause": "ValueError"}
    finally:
        pass
