# {"value": {"a": [1, {"b": null}]}} -> {"a": ["int", {"b": "null"}]}
def run(value):
    match value:
        case {**items} if isinstance(value, dict):
            return {k: run(v) for k, v in items.items()}
        case list():
            return [run(v) for v in value]
        case bool():
            return "bool"
        case int():
            return "int"
        case None:
            return "null"
        case _:
            return type(value).__name__
