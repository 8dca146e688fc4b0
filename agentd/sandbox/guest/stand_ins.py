"""What models reach for out of habit, in a form that does no more than they mean by it: streams, locks, queues."""

from __future__ import annotations

import ast
import collections
import heapq
import re
import sys
import types
from collections.abc import Callable, Iterable
from typing import Any, Final

from .guards import CLASSES, Function, expose, get_attribute, is_own, of_plugin
from .outside import CURRENT

MAX_SOURCE = 20_000
"""Characters of a source that a plugin parses."""
_WORDS = """
Add And BinOp BitAnd BitOr BitXor BoolOp Call Compare Constant Dict Div Eq Expr Expression FloorDiv Gt GtE IfExp In
Invert Is IsNot LShift List Load Lt LtE Mod Module Mult Name Not NotEq NotIn Or Pow RShift Set Slice Sub Subscript Tuple
UAdd USub UnaryOp AST Assign Attribute ClassDef FunctionDef Import ImportFrom Return arg arguments keyword expr operator
unaryop cmpop boolop stmt alias
"""

# sys, warnings, traceback: what is said goes where `print` goes.


class Stream:
    """`sys.stdout` and `sys.stderr`."""

    encoding = "utf-8"

    def write(self, text: str) -> int:
        if not isinstance(text, str):
            raise TypeError(f"a text is written, not a {type(text).__name__}")
        plain = str.__str__(text)
        CURRENT.get().print(plain)
        return len(plain)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Nothing waits."""

    def isatty(self) -> bool:
        return False


class Silence:
    """`sys.stdin`: there is nobody who says anything."""

    def read(self, size: int = -1) -> str:
        return ""

    readline = read

    def readlines(self) -> list[str]:
        return []

    def __iter__(self) -> Any:
        return iter(())


class redirect_stdout:
    """`print` says to another file what it would say to the stream."""

    def __init__(self, target: Any) -> None:
        self._target = target

    def __enter__(self) -> Any:
        CURRENT.get().targets.append(self._target)
        return self._target

    def __exit__(self, *_: Any) -> None:
        CURRENT.get().targets.pop()


def leave(code: Any = None) -> None:
    raise SystemExit(code)


def warn(message: Any, category: Any = UserWarning, *_: Any, **__: Any) -> None:
    CURRENT.get().print(f"{getattr(category, '__name__', 'Warning')}: {message}\n")


def format_exception() -> str:
    """The error that is being handled: its kind and its words, and no places of ours."""
    error = sys.exc_info()[1]
    return "NoneType: None\n" if error is None else f"{type(error).__name__}: {error}\n"


def print_exception(*_: Any, **__: Any) -> None:
    CURRENT.get().print(format_exception())


# functools: by the class of the first argument. The real ones walk modules to read annotations, which are gone here.


class singledispatch:
    """The annotation of a registered function comes as a class: see `language`."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._kinds: dict[type, Any] = {object: function}
        self.__name__ = str(get_attribute(function, "__name__", "function"))
        self.__doc__ = get_attribute(function, "__doc__", None)

    def register(self, kind: Any, function: Any = None) -> Any:
        if function is None:
            return lambda function: self.register(kind, function)
        for each in kind.__args__ if isinstance(kind, types.UnionType) else (kind,):
            if not isinstance(each, type) or not (each in CLASSES or of_plugin(each)):
                raise TypeError(f"register() takes a class, not {each!r}")
            self._kinds[each] = function
        return function

    def dispatch(self, kind: type) -> Any:
        for each in kind.__mro__[:-1]:
            if each in self._kinds:
                return self._kinds[each]
        wider = [each for each in self._kinds if each is not object and issubclass(kind, each)]
        return self._kinds[wider[0] if wider else object]

    def __call__(self, *args: Any, **options: Any) -> Any:
        if not args:
            raise TypeError(f"{self.__name__} requires at least 1 positional argument")
        return self.dispatch(type(args[0]))(*args, **options)


class singledispatchmethod(singledispatch):
    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        def call(*args: Any, **options: Any) -> Any:
            if not args:
                raise TypeError(f"{self.__name__} requires at least 1 positional argument")
            return self.dispatch(type(args[0]))(instance, *args, **options)

        return self if instance is None else Function(call)


# vars: a copy, since what stands behind an object could be changed by it past every guard.


class Attributes(dict[str, Any]):
    """Of an object, as they are now."""

    def _unchanged(self, *_: Any, **__: Any) -> Any:
        raise TypeError("attributes are not changed through vars() or __dict__: use setattr")

    __setitem__ = __delitem__ = __ior__ = _unchanged
    update = pop = popitem = clear = setdefault = _unchanged


def attributes(value: Any) -> Attributes:
    """`vars(x)` and `x.__dict__`: of an object of a plugin's class."""
    if isinstance(value, type) or is_own(value) or not of_plugin(type(value)):
        raise TypeError("vars() is for objects of your own classes")
    own = {re.sub(r"^private0*(?=_)", "", name): each for name, each in vars(value).items() if name[:1] != "_"}
    return Attributes({name: expose(each) for name, each in own.items()})


# threading, queue: nothing runs beside a plugin, so a lock is always free, and who waits for more waits in vain.


class Lock:
    def __init__(self) -> None:
        self._held = 0

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        self._held += 1
        return True

    def release(self) -> None:
        if not self._held:
            raise RuntimeError("release unlocked lock")
        self._held -= 1

    def locked(self) -> bool:
        return self._held > 0

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: Any) -> None:
        self.release()


class Empty(Exception):
    pass


class Full(Exception):
    pass


class Queue:
    def __init__(self, maxsize: int = 0) -> None:
        self.maxsize = maxsize
        self._items: Any = self._made()

    def _made(self) -> Any:
        return collections.deque()

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        if self.full():
            raise Full
        self._add(item)

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        if not self._items:
            raise Empty
        return self._take()

    put_nowait, get_nowait = put, get

    def _add(self, item: Any) -> None:
        self._items.append(item)

    def _take(self) -> Any:
        return self._items.popleft()

    def qsize(self) -> int:
        return len(self._items)

    def empty(self) -> bool:
        return not self._items

    def full(self) -> bool:
        return 0 < self.maxsize <= len(self._items)

    def task_done(self) -> None:
        """Nobody waits for it."""

    join = task_done


class LifoQueue(Queue):
    def _take(self) -> Any:
        return self._items.pop()


class PriorityQueue(Queue):
    def _made(self) -> Any:
        return []

    def _add(self, item: Any) -> None:
        heapq.heappush(self._items, item)

    def _take(self) -> Any:
        return heapq.heappop(self._items)


# secrets: as little of a secret as all random numbers here; a plugin's result is the same for the same seed.


def _drawn() -> Any:
    return CURRENT.get().random


def token_bytes(nbytes: int | None = None) -> bytes:
    data: bytes = _drawn().randbytes(32 if nbytes is None else nbytes)
    return data


def token_hex(nbytes: int | None = None) -> str:
    return token_bytes(nbytes).hex()


# ast: to read an expression, never to run one. Trees are small, as those of the static gate are.


def parse_source(source: Any, filename: str = "<unknown>", mode: str = "exec") -> ast.AST:
    if not isinstance(source, str) or len(source) > MAX_SOURCE:
        raise ValueError(f"a source is a str of at most {MAX_SOURCE} characters")
    if mode not in ("exec", "eval"):
        raise ValueError("a source is parsed with mode 'exec' or 'eval'")
    return ast.parse(str.__str__(source), "<source>", mode)


STAND_INS: Final[dict[str, dict[str, Any]]] = {
    "ast": {
        "parse": parse_source,
        "walk": ast.walk,
        "iter_child_nodes": ast.iter_child_nodes,
        **{name: getattr(ast, name) for name in _WORDS.split()},
    },
    "contextlib": {"redirect_stdout": redirect_stdout},
    "functools": {"singledispatch": singledispatch, "singledispatchmethod": singledispatchmethod},
    "queue": {
        "Queue": Queue,
        "SimpleQueue": Queue,
        "LifoQueue": LifoQueue,
        "PriorityQueue": PriorityQueue,
        "Empty": Empty,
        "Full": Full,
    },
    "secrets": {
        "token_bytes": token_bytes,
        "token_hex": token_hex,
        "choice": lambda values: _drawn().choice(values),
        "randbelow": lambda limit: _drawn().randrange(limit),
        "randbits": lambda bits: _drawn().getrandbits(bits),
    },
    "sys": {
        **{name: getattr(sys, name) for name in ("maxsize", "maxunicode", "byteorder", "float_info", "version_info")},
        "getsizeof": sys.getsizeof,
        "intern": sys.intern,
        "getrecursionlimit": sys.getrecursionlimit,
        "version": sys.version,
        "platform": "linux",
        "argv": ("plugin",),
        "stdout": Stream(),
        "stderr": Stream(),
        "stdin": Silence(),
        "exit": leave,
        "setrecursionlimit": lambda limit: None,
    },
    "threading": {"Lock": Lock, "RLock": Lock},
    "time": {
        # Nothing changes while a plugin waits.
        "sleep": lambda seconds: None,
    },
    "traceback": {"format_exc": format_exception, "print_exc": print_exception},
    "warnings": {"warn": warn, "simplefilter": lambda *_, **__: None, "filterwarnings": lambda *_, **__: None},
}
"""By module; added to what else is given of it."""
