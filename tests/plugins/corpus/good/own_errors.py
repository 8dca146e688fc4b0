# {} -> [[["bad at 3", 3], ["wrapped", "KeyError", "AppError('wrapped')"], "zero", 10.0], [0, 1, 2, 3]]
class AppError(Exception):
    """Base."""


class ParseError(AppError):
    def __init__(self, message, line=0):
        super().__init__(message)
        self.line = line

    def __str__(self):
        return f"{self.args[0]} at {self.line}"


def risky(n):
    try:
        if n == 0:
            raise ParseError("bad", line=3)
        if n == 1:
            raise KeyError("k")
        return 10 / (n - 2)
    except (KeyError, IndexError) as e:
        raise AppError("wrapped") from e
    except ZeroDivisionError:
        return "zero"
    else:
        return "else"
    finally:
        LOG.append(n)


LOG = []


def run():
    out = []
    for n in range(4):
        try:
            out.append(risky(n))
        except ParseError as e:
            out.append([str(e), e.line])
        except AppError as e:
            out.append([str(e), type(e.__cause__).__name__, repr(e)])
    return [out, LOG]
