"""Ways out of the language, each a function `run` that gives what it got hold of: host data or a forbidden object.

One that is refused while it is loaded, or raises, has failed; so has one whose result `LEAKS` finds nothing in. Only the
language is asked here: no static gate, no operating system.
"""

from __future__ import annotations

MARK = "host-canary-7391"
"""Stands in the environment and in a file of the test, and in nothing that a plugin is given."""

ESCAPES: dict[str, str] = {}


def _escape(name: str, source: str) -> None:
    assert name not in ESCAPES
    ESCAPES[name] = source.strip("\n")


# Functions lead to their modules, modules to everything.
_escape("function_globals", "import json\ndef run():\n    return str(json.dumps.__globals__)")
_escape("method_globals", "import json\ndef run():\n    return str(json.JSONEncoder.encode.__globals__)")
_escape("own_globals", "def run():\n    return str(run.__globals__)")
_escape("getattr_globals", "import json\ndef run():\n    return str(getattr(json.dumps, '__glo' + 'bals__'))")
_escape("builtin_self", "def run():\n    return str(len.__self__.open)")
_escape("code_object", "def run():\n    return str(run.__code__.co_consts)")
_escape("closure", "import contextlib\ndef run():\n    return str(contextlib.suppress.__init__.__closure__)")
_escape(
    "wrapped",
    "import functools, json\ndef run():\n    return str(functools.lru_cache(json.dumps).__wrapped__.__globals__)",
)
_escape(
    "partial_func", "import functools, json\ndef run():\n    return str(functools.partial(json.dumps).func.__globals__)"
)
_escape("bound_method", "import textwrap\ndef run():\n    return str(textwrap.TextWrapper().fill.__func__.__globals__)")

# Types lead to every class that is loaded.
_escape("subclasses", "def run():\n    return str(().__class__.__base__.__subclasses__())")
_escape("mro", "def run():\n    return [str(c) for c in int.mro()] + ['canary'] if int.mro() else 0")
_escape("bases", "class A: pass\ndef run():\n    return str(A.__bases__[0].__subclasses__())")
_escape("type_of_type", "def run():\n    return str(type(type(1)).__subclasses__(type(type(1))))")
_escape("type_three", "def run():\n    return str(type('X', (), {'__getattribute__': lambda s, n: 1})().x)")
_escape("metaclass", "class M(type):\n    pass\nclass A(metaclass=M): pass\ndef run():\n    return str(M)")
_escape("metaclass_of_enum", "from enum import Enum\nclass M(type(Enum)):\n    pass\ndef run():\n    return str(M)")
_escape("function_type", "def run():\n    F = type(run)\n    return str(F(1, {}))")
_escape(
    "object_getattribute", "import json\ndef run():\n    return str(object.__getattribute__(json.dumps, '__class__'))"
)
_escape(
    "super_getattribute",
    """
class A:
    def get(self, name):
        return super().__getattribute__(name)
def run():
    return str(A().get('__class__').__base__)
""",
)
_escape(
    "super_walks_past",
    """
import configparser
def run():
    return super(configparser.ConfigParser, configparser.ConfigParser()).read(PATH)
""",
)
_escape("class_attribute_of_dict", "class A:\n    x = 1\ndef run():\n    return str(A.__dict__)")

# Text that is formatted reads attributes.
_escape("format_globals", "def run():\n    return '{0.__globals__}'.format(run)")
_escape("format_class", "def run():\n    return '{0.__class__.__base__}'.format(1)")
_escape("format_map", "def run():\n    return '{f.__globals__}'.format_map({'f': run})")
_escape("format_of_class", "def run():\n    return str.format('{0.__globals__}', run)")
_escape("format_by_map", "def run():\n    return list(map('{0.__globals__}'.format, [run]))")
_escape("format_by_getattr", "def run():\n    return getattr('{0.__globals__}', 'format')(run)")
_escape(
    "format_by_methodcaller",
    "import operator\ndef run():\n    return operator.methodcaller('format', run)('{0.__globals__}')",
)
_escape(
    "format_by_attrgetter",
    "import operator\ndef run():\n    return operator.attrgetter('format')('{0.__globals__}')(run)",
)
_escape("format_of_subclass", "class S(str): pass\ndef run():\n    return S('{0.__globals__}').format(run)")
_escape(
    "format_by_super",
    """
class S(str):
    def go(self, value):
        return super().format(value)
def run():
    return S('{0.__globals__}').go(run)
""",
)
_escape(
    "format_in_pattern",
    """
def run():
    match '{0.__globals__}':
        case str(format=f):
            return f(run)
""",
)
_escape(
    "format_as_pattern_value",
    """
class Thief:
    def __eq__(self, other):
        self.got = other
        return True
def run():
    thief, text = Thief(), '{0.__globals__}'
    match thief:
        case text.format:
            return thief.got(run)
""",
)
_escape(
    "format_by_augmented",
    """
class Thief:
    def __radd__(self, other):
        self.got = other
class S(str): pass
def run():
    thief, text = Thief(), S('{0.__globals__}')
    try:
        text.format += thief
    finally:
        return thief.got(run)
""",
)
_escape(
    "format_by_dataclass",
    """
from dataclasses import dataclass, astuple
@dataclass(init=False)
class S(str):
    format: object
def run():
    return astuple(S('{0.__globals__}'))[0](run)
""",
)
_escape(
    "format_by_match_args",
    """
from abc import ABC
from dataclasses import dataclass
@dataclass
class A(ABC):
    format: object
A.register(str)
def run():
    match '{0.__globals__}':
        case A(f):
            return f(run)
""",
)
_escape(
    "format_by_userstring",
    "from collections import UserString\ndef run():\n    return UserString('{0.__globals__}').format(run)",
)
_escape("string_formatter", "import string\ndef run():\n    return string.Formatter().format('{0.__globals__}', run)")
_escape(
    "logging_format",
    "import logging\ndef run():\n    return logging.Formatter('{x.__globals__}', style='{').format(run)",
)
_escape("format_spec", "def run():\n    return '{:{0.__globals__}}'.format(run)")
_escape("format_index", "def run():\n    return '{0[a].__globals__}'.format({'a': run})")

# Frames and tracebacks.
_escape(
    "traceback_frame",
    """
def run():
    try:
        1 / 0
    except Exception as e:
        return str(e.__traceback__.tb_frame.f_back.f_globals)
""",
)
_escape(
    "exit_traceback",
    """
class C:
    def __enter__(self): return self
    def __exit__(self, kind, error, trace):
        self.got = str(trace.tb_frame.f_back)
        return True
def run():
    with C() as c:
        1 / 0
    return c.got
""",
)
_escape(
    "exit_traceback_getattr",
    """
import operator
class C:
    def __enter__(self): return self
    def __exit__(self, kind, error, trace):
        self.got = str(operator.attrgetter('tb_frame.f_back.f_globals')(trace))
        return True
def run():
    with C() as c:
        1 / 0
    return c.got
""",
)
_escape(
    "exit_traceback_match",
    """
class C:
    def __enter__(self): return self
    def __exit__(self, kind, error, trace):
        match trace:
            case object(tb_frame=f):
                self.got = str(f)
        return True
def run():
    with C() as c:
        1 / 0
    return c.got
""",
)
_escape("generator_frame", "def g():\n    yield 1\ndef run():\n    return str(g().gi_frame.f_globals)")
_escape(
    "generator_of_host",
    "import difflib\ndef run():\n    return str(getattr(difflib.unified_diff('a', 'b'), 'gi_frame').f_globals)",
)
_escape("generator_code", "import heapq\ndef run():\n    return str(heapq.merge([1]).gi_code)")
_escape(
    "error_obj",
    """
def run():
    try:
        (1).nothing
    except AttributeError as e:
        return 'canary' + str(e.obj)
""",
)
_escape("coroutine", "async def f(): pass\ndef run():\n    return str(f().cr_frame)")
_escape(
    "with_traceback",
    "def run():\n    try:\n        1 / 0\n    except Exception as e:\n        return str(e.__context__.__traceback__)",
)

# Imports.
for _name in ("os", "subprocess", "socket", "ctypes", "importlib", "builtins", "inspect", "pickle"):
    _escape(
        f"import_{_name}",
        f"def run():\n    import {_name}\n    return str({_name}.environ if '{_name}' == 'os' else {_name})",
    )
_escape("import_call", "def run():\n    return str(__import__('os').environ)")
_escape("import_from_builtins", "from builtins import __import__ as imp\ndef run():\n    return str(imp('os'))")
_escape("import_through_package", "from os import environ\ndef run():\n    return str(environ)")
_escape("import_submodule_fallback", "from urllib import request\ndef run():\n    return str(request)")
_escape("import_sibling", "from xml import sax\ndef run():\n    return str(sax.handler)")
_escape("import_path_os", "from os.path import os\ndef run():\n    return str(os.environ)")
_escape("import_renamed_guard", "from json import dumps as _getattr_\ndef run():\n    return str((1).__class__)")
_escape("module_of_module", "import json\ndef run():\n    return str(json.decoder.scanner)")
_escape("module_dict", "import json\ndef run():\n    return str(json.__dict__)")
_escape("module_loader", "import math\ndef run():\n    return str(math.__loader__)")
_escape("random_os", "import random\ndef run():\n    return str(random._os.environ)")
_escape("calendar_sys", "import calendar\ndef run():\n    return str(calendar.sys.modules)")
_escape("enum_sys", "import enum\ndef run():\n    return str(enum.sys.modules)")
_escape("codecs_open", "import codecs\ndef run():\n    return codecs.open(PATH).read()")

# Names of the guards and of built-in things.
_escape("eval", "def run():\n    return str(eval('().__class__.__base__'))")
_escape("eval_by_name", "e = eval\ndef run():\n    return str(e('1'))")
_escape("exec", "def run():\n    exec('import os')")
_escape("compile", "def run():\n    return str(compile('1', '', 'eval'))")
_escape("globals", "def run():\n    return str(globals())")
_escape("vars", "import json\ndef run():\n    return str(vars(json))")
_escape("dir", "import json\ndef run():\n    return 'canary' + str(dir(json))")
_escape("builtins_name", "def run():\n    return str(__builtins__)")
_escape("rebind_guard", "def _getattr_(a, b): return a\ndef run():\n    return str(1)")
_escape("rebind_guard_for", "def run():\n    for _getattr_ in [1]: pass\n    return str(_getattr_)")
_escape("rebind_guard_match", "def run():\n    match 1:\n        case _write_: return str(_write_)")
_escape("rebind_guard_global", "def run():\n    global _getattr_\n    _getattr_ = getattr\n    return str(_getattr_)")
_escape("rebind_guard_walrus", "def run():\n    return str((_getattr_ := getattr))")
_escape(
    "rebind_guard_except",
    "def run():\n    try:\n        1 / 0\n    except Exception as _getattr_:\n        return str(_getattr_)",
)
_escape("set_global_name", "class A: pass\ndef run():\n    setattr(run, '__code__', 1)\n    return 'canary'")
_escape(
    "setattr_class",
    "class A: pass\nclass B: pass\ndef run():\n    a = A()\n    setattr(a, '__class__', B)\n    return 'canary'",
)
_escape(
    "class_cell",
    "class A:\n    def f(self):\n        return str(__class__.__subclasses__())\ndef run():\n    return A().f()",
)
_escape("open_host_file", "def run():\n    return open(PATH).read()")
_escape(
    "dunder_by_str_subclass",
    """
class S(str):
    def startswith(self, *a): return False
    def __eq__(self, other): return False
    def __hash__(self): return 1
import json
def run():
    return str(getattr(json.dumps, S('__globals__')))
""",
)
_escape("type_parameters", "def run[T: (print := 1)]():\n    return 'canary'")
_escape(
    "decorator_frame",
    "import functools\n@functools.singledispatch\ndef f(x): pass\ndef run():\n    return str(f.registry)",
)

# Library functions that read or set attributes, call back, or open files.
_escape(
    "wraps_assigned",
    """
import functools, json
class A: pass
def run():
    a = A()
    functools.wraps(json.dumps, assigned=('__globals__',))(a)
    return str(a.__globals__)
""",
)
_escape(
    "wraps_code",
    """
import functools, json
def f(): pass
def run():
    functools.update_wrapper(f, json.dumps, assigned=('__code__',))
    return str(f(1, 2, 3))
""",
)
_escape(
    "enum_functional",
    """
from enum import Enum
def run():
    E = Enum('E', {'__reduce_ex__': lambda self, p: (str, ('canary',)), 'A': 1})
    return str(E)
""",
)
_escape(
    "namespace_reduce",
    """
import copy
from types import SimpleNamespace
class Victim: pass
def run():
    n = SimpleNamespace(**{'__reduce_ex__': lambda p: (lambda: Victim, (), (None, {'__match_args__': ('__init__',)}))})
    copy.copy(n)
    return 'canary' + str(Victim.x)
""",
)
_escape(
    "cached_property_name",
    """
import copy, functools
class A:
    @functools.cached_property
    def p(self): return lambda p: (lambda: A, (), (None, {'x': 'canary'}))
def run():
    A.p.__set_name__(A, '__reduce_ex__')
    a = A()
    a.p
    copy.copy(a)
    return A.x
""",
)
_escape(
    "namedtuple_field",
    "from collections import namedtuple\ndef run():\n    return str(namedtuple('A', '__class__')(1))",
)
_escape(
    "match_args",
    "class A:\n    __match_args__ = ('__class__',)\ndef run():\n    match A():\n        case A(c): return str(c.__base__)",
)
_escape("match_dunder", "def run():\n    match 1:\n        case int(__class__=c): return 'canary' + str(c)")
_escape(
    "abc_register",
    "from abc import ABC\nclass A(ABC): pass\ndef run():\n    A.register(str)\n    return 'canary' if isinstance('', A) else ''",
)
_escape("abc_register_of_host", "from numbers import Number\ndef run():\n    Number.register(str)\n    return 'canary'")
_escape(
    "reduce_defined",
    "import copy\nclass A:\n    def __reduce__(self): return (str, ('canary',))\ndef run():\n    return copy.copy(A())",
)
_escape(
    "config_read",
    "import configparser\ndef run():\n    c = configparser.ConfigParser(allow_no_value=True)\n    return 'canary' if c.read(PATH) else ''",
)
_escape(
    "config_read_by_subclass",
    """
import configparser
class C(configparser.ConfigParser):
    def go(self):
        return super().read(PATH)
def run():
    return 'canary' if C(allow_no_value=True).go() else ''
""",
)
_escape("xml_parse", "import xml.etree.ElementTree as ET\ndef run():\n    return str(ET.parse(PATH))")
_escape(
    "xml_write",
    "import xml.etree.ElementTree as ET\ndef run():\n    ET.ElementTree(ET.Element('a')).write(PATH)\n    return 'canary'",
)
_escape(
    "xml_entity",
    """
import xml.etree.ElementTree as ET
def run():
    return ET.fromstring('<!DOCTYPE a [<!ENTITY x SYSTEM "file://' + PATH + '">]><a>&x;</a>').text
""",
)
_escape("io_open", "import io\ndef run():\n    return io.open(PATH).read()")
_escape("io_fileio", "import io\ndef run():\n    return io.FileIO(PATH).read().decode()")
_escape("path_read", "from pathlib import Path\ndef run():\n    return Path(PATH).read_text()")
_escape("os_listdir", "import os\ndef run():\n    return os.listdir('/')")
_escape("fspath", "import os.path\ndef run():\n    return os.path.realpath('.')")
_escape("shlex_source", "import shlex\ndef run():\n    s = shlex.shlex('x')\n    return s.sourcehook(PATH)[1].read()")
_escape("tomllib_file", "import tomllib\ndef run():\n    return tomllib.load(PATH)")
_escape("print_file", "def run():\n    print('x', file=type(open)())\n    return 'canary'")
_escape("help", "def run():\n    return str(help)")
_escape("timeit", "import timeit\ndef run():\n    return timeit.timeit('import os')")
_escape("uuid_getnode", "import uuid\ndef run():\n    return 'canary' + str(uuid.getnode())")
_escape("facade_write", "import json\ndef run():\n    json.dumps = 1\n    return 'canary'")
_escape("class_write", "import json\ndef run():\n    json.JSONEncoder.encode = 1\n    return 'canary'")
_escape("function_slot", "import json\ndef run():\n    return str(json.dumps._target)")
_escape(
    "deepcopy_function", "import copy, json\ndef run():\n    return 'canary' + str(copy.deepcopy(json.dumps)._target)"
)
_escape(
    "catch_and_walk",
    """
import json
def run():
    try:
        json.dumps(object())
    except TypeError as e:
        return str([getattr(e, n) for n in ('__traceback__', '__context__')])
""",
)
_escape(
    "callback_frame",
    """
import json
got = []
def hook(value):
    got.append(value)
    raise ValueError
def run():
    try:
        json.dumps(object(), default=hook)
    except ValueError as e:
        return str(e.__traceback__.tb_next)
""",
)
_escape(
    "json_encoder_class",
    "import json\ndef run():\n    return str(json.JSONEncoder().iterencode({}).gi_frame.f_globals)",
)
_escape(
    "exit_stack",
    """
from contextlib import ExitStack
got = []
def leave(kind, error, trace):
    got.append(getattr(trace, 'tb_frame').f_globals)
    return True
def run():
    with ExitStack() as stack:
        stack.push(leave)
        1 / 0
    return str(got)
""",
)


# What a dataclass, a pattern or the `__init__` of another class reads or writes without a guard.
_escape(
    "format_by_astuple",
    """
from dataclasses import dataclass, astuple
@dataclass
class A:
    format: int
class B(A, str):
    pass
def run():
    b = B.__new__(B, "{0.__globals__}")
    return astuple(b)[0](run)[:300]
""",
)
_escape(
    "format_by_replace",
    """
from dataclasses import dataclass, replace
@dataclass
class A:
    format: int
class B(A, str):
    def __new__(cls, *a, **k): return str.__new__(cls, "{0.__globals__}")
    def __init__(self, format=None):
        self.kept = [format]
def run():
    b = B()
    return replace(b).kept[0](run)[:300]
""",
)
_escape(
    "format_by_dataclass_eq",
    """
from dataclasses import dataclass
@dataclass
class A:
    format: int
class B(A, str):
    pass
class Evil:
    def __eq__(self, other):
        global got
        got = other
        return True
got = None
def run():
    a = B.__new__(B, "{0.__globals__}")
    b = B.__new__(B, "x")
    setattr(b, "format", Evil())
    a.__eq__(b); b.__eq__(a)
    return got(run)[:300]
""",
)
_escape(
    "abc_register_in_pattern",
    """
from abc import ABC
class A(ABC): pass
class E:
    def __eq__(self, other):
        other(str)
        return True
def run():
    match E():
        case A.register: pass
    return "canary" if isinstance("", A) else ""
""",
)
_escape(
    "host_class_by_namespace_init",
    """
from types import SimpleNamespace
import textwrap
def run():
    SimpleNamespace.__init__(textwrap.TextWrapper, wrap="canary")
    return textwrap.TextWrapper.wrap
""",
)
_escape(
    "host_class_by_encoder_init",
    """
import json, textwrap
def run():
    json.JSONEncoder.__init__(textwrap.TextWrapper, default="canary")
    return textwrap.TextWrapper.default
""",
)

# Streams, dispatch, attributes, locks, queues, trees: what stands in for parts of the library.
_escape(
    "sys_modules",
    """
import sys
def run():
    return str(sys.modules)
""",
)
_escape(
    "sys_frame",
    """
import sys
def run():
    return str(sys._getframe().f_globals)
""",
)
_escape(
    "sys_exc_info",
    """
import sys
def run():
    try:
        1 / 0
    except ZeroDivisionError:
        return str(sys.exc_info()[2].tb_frame)
""",
)
_escape(
    "sys_path",
    """
import sys
def run():
    return str(sys.path)
""",
)
_escape(
    "sys_stream_globals",
    """
import sys
def run():
    return str(sys.stdout.write.__globals__)
""",
)
_escape(
    "sys_stream_class",
    """
import sys
def run():
    return str(sys.stdin.__class__.read.__globals__)
""",
)
_escape(
    "sys_exit_globals",
    """
import sys
def run():
    return str(sys.exit.__globals__)
""",
)
_escape(
    "sys_original_stream",
    """
import sys
def run():
    return str(sys.__stdout__)
""",
)
_escape(
    "sys_float_info_class",
    """
import sys
def run():
    return str(sys.float_info.__class__.__base__.__subclasses__())
""",
)
_escape(
    "sys_trace",
    """
import sys
def run():
    seen = []
    sys.settrace(lambda frame, *_: seen.append(frame))
    return str(seen) + "canary"
""",
)
_escape(
    "streams_are_not_shared_by_change",
    """
import sys
def run():
    sys.stdout = 1
    sys.argv.append(1)
    return "canary"
""",
)
_escape(
    "dispatch_globals",
    """
from functools import singledispatch
@singledispatch
def f(x):
    return x
def run():
    return str(f.register.__globals__) + str(f.__call__.__globals__)
""",
)
_escape(
    "dispatch_function_globals",
    """
from functools import singledispatch
@singledispatch
def f(x):
    return x
def run():
    return str(f.dispatch(object).__globals__)
""",
)
_escape(
    "dispatch_kinds",
    """
from functools import singledispatch
@singledispatch
def f(x):
    return x
def run():
    return str(f._kinds) + str(f.registry)
""",
)
_escape(
    "dispatch_of_type",
    """
from functools import singledispatch
@singledispatch
def f(x):
    return x
def run():
    return str(f.dispatch(type).__subclasses__(f))
""",
)
_escape(
    "dispatch_init_of_another",
    """
import textwrap
from functools import singledispatch
def f(x):
    return "canary"
def run():
    singledispatch.__init__(textwrap.TextWrapper, f)
    return textwrap.TextWrapper.__name__
""",
)
_escape(
    "dispatch_by_name",
    """
from functools import singledispatchmethod
class C:
    @singledispatchmethod
    def f(self, x):
        return x
def run():
    return str(C().f.__globals__) + str(C.f.__globals__)
""",
)
_escape(
    "vars_of_module",
    """
import json
def run():
    return str(vars(json))
""",
)
_escape(
    "vars_of_class",
    """
def run():
    return str(vars(str)) + "canary"
""",
)
_escape(
    "vars_of_own_class",
    """
class C:
    pass
def run():
    return str(vars(C)["__dict__"]) + "canary"
""",
)
_escape(
    "vars_of_function",
    """
def f():
    pass
def run():
    return str(vars(f)) + "canary"
""",
)
_escape(
    "vars_of_host_object",
    """
import textwrap
def run():
    return str(vars(textwrap.TextWrapper())) + "canary"
""",
)
_escape(
    "vars_of_inheritor",
    """
from contextlib import ExitStack
class C(ExitStack):
    pass
def run():
    c = C()
    c.callback(print)
    return str(vars(c)["_exit_callbacks"][0][1].__globals__)
""",
)
_escape(
    "vars_change",
    """
class C:
    pass
def run():
    c = C()
    c.__dict__["__class__"] = str
    return "canary"
""",
)
_escape(
    "vars_update",
    """
class C:
    pass
def run():
    c = C()
    vars(c).update(x="canary")
    return c.x
""",
)
_escape(
    "vars_change_past_its_own",
    """
class C:
    pass
def run():
    c = C()
    dict.update(vars(c), x="canary")
    return c.x
""",
)
_escape(
    "dict_by_pattern",
    """
class C:
    pass
def run():
    match C():
        case C(__dict__=d):
            return str(d) + "canary"
""",
)
_escape(
    "dict_by_name",
    """
class C:
    pass
n = "__dict__"
def run():
    return str(getattr(C, n)) + "canary"
""",
)
_escape(
    "dict_of_class",
    """
class C:
    pass
def run():
    return str(C.__dict__["__dict__"]) + "canary"
""",
)
_escape(
    "match_args_format",
    """
class S(str):
    __match_args__ = ("format",)
def run():
    match S("{0.__class__.__init__.__globals__}"):
        case S(f):
            return f(S)
""",
)
_escape(
    "match_args_dunder",
    """
class C:
    __match_args__ = ("__class__",)
def run():
    match C():
        case C(k):
            return str(k.__subclasses__) + "canary"
""",
)
_escape(
    "match_args_computed",
    """
class C:
    __match_args__ = tuple(["__dict__"])
def run():
    match C():
        case C(d):
            return str(d) + "canary"
""",
)
_escape(
    "match_args_later",
    """
class C:
    __match_args__ = ("x",)
def run():
    C.__match_args__ = ("__dict__",)
    match C():
        case C(d):
            return str(d) + "canary"
""",
)
_escape(
    "match_args_obj",
    """
class C(AttributeError):
    __match_args__ = ("obj",)
def run():
    try:
        import json
        json.nothing
    except AttributeError as e:
        match e:
            case C(o):
                return str(o)
""",
)
_escape(
    "queue_globals",
    """
from queue import Queue
def run():
    return str(Queue.put.__globals__) + str(Queue().get.__globals__)
""",
)
_escape(
    "lock_globals",
    """
from threading import Lock
def run():
    return str(Lock().acquire.__globals__)
""",
)
_escape(
    "thread",
    """
import threading
def run():
    seen = []
    threading.Thread(target=lambda: seen.append("canary")).start()
    return str(seen)
""",
)
_escape(
    "redirect_internals",
    """
from contextlib import redirect_stdout
def run():
    return str(redirect_stdout(1).__enter__.__globals__)
""",
)
_escape(
    "secrets_random",
    """
import secrets
def run():
    return str(secrets.SystemRandom) + str(secrets.choice.__globals__)
""",
)
_escape(
    "ast_modules",
    """
import ast
def run():
    return str(ast.sys.modules)
""",
)
_escape(
    "ast_compile",
    """
import ast
def run():
    exec(compile(ast.parse("import os"), "x", "exec"))
    return "canary"
""",
)
_escape(
    "ast_walk_frame",
    """
import ast
def run():
    return str(ast.walk(ast.parse("1")).gi_frame.f_globals)
""",
)
_escape(
    "ast_subclasses",
    """
import ast
def run():
    return str(ast.parse("1").__class__.__base__.__subclasses__())
""",
)
_escape(
    "ast_change",
    """
import ast
def run():
    ast.Constant.canary = "canary"
    return ast.Constant.canary
""",
)
_escape(
    "ast_own_fields",
    """
import ast
class C(ast.AST):
    _fields = ("__class__",)
def run():
    return str(list(ast.iter_child_nodes(C()))) + "canary"
""",
)
_escape(
    "traceback_sys",
    """
import traceback
def run():
    return str(traceback.sys.modules)
""",
)
_escape(
    "traceback_places",
    """
import traceback
def run():
    try:
        raise ValueError
    except ValueError:
        return traceback.format_exc() + str(traceback.extract_stack())
""",
)
_escape(
    "warnings_module",
    """
import warnings
def run():
    return str(warnings.catch_warnings()._module.__builtins__)
""",
)
_escape(
    "warnings_linecache",
    """
import warnings
def run():
    return str(warnings.linecache)
""",
)
_escape(
    "cause_frame",
    """
def run():
    try:
        raise ValueError from KeyError("x")
    except ValueError as e:
        return str(e.__cause__.__traceback__.tb_frame)
""",
)
_escape(
    "cause_obj",
    """
import json
def run():
    try:
        try:
            json.nothing
        except AttributeError as e:
            raise ValueError from e
    except ValueError as e:
        return str(e.__cause__.obj)
""",
)
_escape(
    "environ_is_empty",
    """
import os
def run():
    return str(dict(os.environ)) + str(os.getenv("AGENTD_TEST_CANARY"))
""",
)
_escape(
    "environ_change",
    """
import os
def run():
    os.environ["X"] = "canary"
    return os.environ["X"]
""",
)
_escape(
    "array_reduce",
    """
from array import array
def run():
    return str(array("b").__reduce_ex__(2)) + "canary"
""",
)
_escape(
    "array_file",
    """
from array import array
def run():
    array("b", [1]).tofile(open(PATH, "wb"))
    return "canary"
""",
)
_escape(
    "handler_stream",
    """
import logging
def run():
    return str(logging.StreamHandler().stream) + "canary"
""",
)
_escape(
    "logging_sys",
    """
import logging
def run():
    return str(logging.sys.modules)
""",
)
_escape(
    "gzip_open",
    """
import gzip
def run():
    return gzip.open(PATH).read().decode()
""",
)
_escape(
    "posixpath_os",
    """
import posixpath
def run():
    return str(posixpath.os.environ)
""",
)
_escape(
    "pattern_scanner_class",
    """
import re
def run():
    return str(re.compile("a").scanner("a").__class__.__subclasses__) + "canary"
""",
)
_escape(
    "pattern_method_globals",
    """
import re
def run():
    return str(re.compile("a").search.__globals__)
""",
)
_escape(
    "a_script_that_is_a_plugin",
    """
import argparse
def main():
    return argparse
def run():
    return str(main())
if __name__ == "__main__":
    main()
""",
)
_escape(
    "optional_import",
    """
try:
    import os, sys, subprocess
except ImportError:
    os = None
def run():
    return str(os.environ["AGENTD_TEST_CANARY"])
""",
)
