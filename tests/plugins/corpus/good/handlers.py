# {} -> {"rev": "ba", "up": "AB", "n": 2}
_registry = {}


def register(name):
    def deco(fn):
        _registry[name] = fn
        return fn
    return deco


@register("up")
def _up(s):
    return s.upper()


@register("rev")
def _rev(s):
    return s[::-1]


HANDLERS = {"up": _up, "rev": _rev}


def run(s="ab"):
    return {k: f(s) for k, f in sorted(_registry.items())} | {"n": len(HANDLERS)}
