# {"fail": 2} -> {"result": "ok", "attempts": 3}
from functools import wraps


def retry(times):
    def decorate(function):
        @wraps(function)
        def wrapper(*args, **kwargs):
            last = None
            for attempt in range(1, times + 1):
                try:
                    return function(*args, **kwargs), attempt
                except ValueError as error:
                    last = error
            raise RuntimeError("gave up") from last

        return wrapper

    return decorate


def run(fail):
    calls = {"n": 0}

    @retry(5)
    def work():
        calls["n"] += 1
        if calls["n"] <= fail:
            raise ValueError("not yet")
        return "ok"

    result, attempts = work()
    return {"result": result, "attempts": attempts}
