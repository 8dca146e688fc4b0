"""The static gate: what a source may not contain, whatever it would do; each refusal names line, rule and a way out.

It makes no plugin safe: the language and the operating system do. It keeps what they would refuse, what nobody could
review and what would break the tools that read sources from getting further, in words that an author can act on.
"""

from __future__ import annotations

import ast
import io
import tokenize
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from types import CodeType
from typing import NamedTuple

from . import facades
from .language import Violation, compiled, imports, is_dunder, without_script
from .policy import METHODS, readable

MAX_BYTES = 64 * 1024
MAX_BRACKETS = 60
MAX_NODES = 20_000
MAX_NESTING = 150
"""Of the parts of the tree: chains of calls and operators count too."""
MAX_BRANCHES = 40
"""Of one function."""
MAX_LINES = 200
"""Of one function."""
_BY_NAME = ("getattr", "setattr", "delattr", "hasattr")
_INVISIBLE = ("Cc", "Cf", "Co", "Cs", "Zl", "Zp")
_LEADING = "eval exec compile globals locals dir input breakpoint memoryview help exit quit __import__ __build_class__"
_ABSENT = frozenset({"ImportError", "ModuleNotFoundError", "Exception"})
_NOT_OFFERED = frozenset(_LEADING.split())
_DUNDER_NAMES = METHODS | {"__name__"}
_QUIET = """
compile frozenset set dict list tuple str bytes int float bool range object len sorted reversed sum min max zip
enumerate map abs round ord chr namedtuple TypeVar NewType cast Decimal Fraction date time datetime timedelta timezone
UUID Path PurePath Template maketrans split splitlines strip lower upper encode join format keys values items union
fromkeys getLogger NullHandler StreamHandler Formatter Lock RLock itemgetter attrgetter partial field fromisoformat
from_iterable product Counter OrderedDict defaultdict deque MappingProxyType Struct escape log sqrt radians isinstance
cycle chain count get index add append extend update insert setdefault sort reverse discard addHandler setLevel
setFormatter basicConfig setrecursionlimit array
"""
_QUIET_CALLS = frozenset(_QUIET.split())
"""Functions and methods that a module may call while it is loaded, beside those that it defines itself."""


class Report(NamedTuple):
    """`entries`: the public functions in their order; the code is there when nothing is wrong."""

    violations: list[Violation]
    entries: Sequence[str] = ()
    imports: Sequence[str] = ()
    code: CodeType | None = None


def check(source: bytes, grants: Iterable[str]) -> Report:
    """Look at a source, and compile it when it may run."""
    found = list(_text(source))
    if found:
        return Report(found)
    text = source.decode("utf-8-sig")
    try:
        tree = ast.parse(text, "plugin")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        hint = "write one Python file, complete and without anything around it"
        return Report([Violation(getattr(error, "lineno", None) or 1, "syntax", str(error), hint)])
    entries = [node.name for node in tree.body if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")]
    found = [*_size(tree), *_tokens(text)]
    tree = without_script(tree)
    found = found or [
        *_imports(tree, frozenset(grants)),
        *_names(tree),
        *_effects(tree),
        *_functions(tree),
    ]
    if not entries:
        hint = "define the function that is to be called, with a name that has no underscore before it"
        found.append(Violation(1, "no-entry", "there is no public function", hint))
    code = None
    if not found:
        code, found = compiled(tree)
    offered = {*facades.FACADES, *facades.CAPABILITIES}
    imported = sorted({module for _, module, _ in imports(tree)} & offered) if code is not None else []
    return Report(sorted(set(found)), entries, imported, code)


def _text(source: bytes) -> Iterator[Violation]:
    if len(source) > MAX_BYTES:
        yield Violation(1, "size", f"it has {len(source)} bytes, {MAX_BYTES} are allowed", "do less in one plugin")
        return
    try:
        text = source.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        yield Violation(1, "encoding", f"it is not UTF-8: {error}", "save it as UTF-8")
        return
    if not text.strip():
        yield Violation(1, "empty", "there is no code", "define a function")
    for number, line in enumerate(text.replace("\r\n", "\n").split("\n"), 1):
        for character in line:
            if character not in "\t\f" and unicodedata.category(character) in _INVISIBLE:
                message = f"it contains the invisible character U+{ord(character):04X}"
                yield Violation(number, "invisible", message, "write it as an escape")
                return


def _tokens(text: str) -> Iterator[Violation]:
    """Brackets, and names before the parser has made letters of other alphabets into ours."""
    depth = 0
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.OP:
            depth += (token.string in "([{") - (token.string in ")]}")
            if depth > MAX_BRACKETS:
                message = f"brackets are nested more than {MAX_BRACKETS} deep"
                yield Violation(token.start[0], "brackets", message, "use variables")
                return
        elif token.type == tokenize.NAME and not token.string.isascii():
            message = f"the name {token.string!r} is not ASCII"
            yield Violation(token.start[0], "identifier", message, "use English letters")


def _size(tree: ast.AST) -> Iterator[Violation]:
    level, nodes = [tree], 0
    for depth in range(MAX_NESTING + 1):
        nodes += len(level)
        level = [child for node in level for child in ast.iter_child_nodes(node)]
        if nodes > MAX_NODES:
            yield Violation(1, "size", f"it has more than {MAX_NODES} parts", "do less in one plugin")
            return
        if depth == MAX_NESTING and level:
            line = getattr(level[0], "lineno", 1)
            yield Violation(line, "nesting", "it is nested too deeply, or a chain is too long", "use variables")


def _imports(tree: ast.AST, grants: frozenset[str]) -> Iterator[Violation]:
    known = {"__future__", *facades.FACADES, *(grants & facades.CAPABILITIES.keys())}
    optional = set(_optional(tree))
    for line, module, name in imports(tree):
        if line in optional and module not in known:
            continue
        if module in facades.CAPABILITIES and module not in known:
            hint = "ask for the permission in the spec"
            yield Violation(line, "import", f"the module {module!r} was not granted", hint)
        elif module not in known:
            hint = f"there are {', '.join(sorted(known - {'__future__'}))}"
            yield Violation(line, "import", f"the module {module!r} is not offered", hint)
        elif name == "*":
            yield Violation(line, "star-import", f"everything is taken from {module!r}", "name what you import")
        elif name and module != "__future__":
            yield from _offered(line, {**facades.FACADES, **facades.CAPABILITIES}[module], name)


def _optional(tree: ast.AST) -> Iterator[int]:
    """Lines of imports that may fail: what stands in for them is written down."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Try) and any(_caught(handler) & _ABSENT for handler in node.handlers):
            yield from (each.lineno for each in node.body if isinstance(each, ast.Import | ast.ImportFrom))


def _caught(handler: ast.ExceptHandler) -> set[str]:
    return {part.id for part in ast.walk(handler.type) if isinstance(part, ast.Name)} if handler.type else set(_ABSENT)


def _offered(line: int, module: facades.Facade, name: str) -> Iterator[Violation]:
    try:
        getattr(module, name)
    except AttributeError as error:
        yield Violation(line, "import", str(error), "do without it, or write it yourself")


def _names(tree: ast.AST) -> Iterator[Violation]:
    bound = set(_bound(tree))
    for node in ast.walk(tree):
        line = getattr(node, "lineno", 1)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            leads = is_dunder(node.id) and node.id not in _DUNDER_NAMES
            if leads or (node.id in _NOT_OFFERED and node.id not in bound):
                hint = "say it with plain functions and values"
                yield Violation(line, "name", f"{node.id!r} is not offered", hint)
        elif isinstance(node, ast.Attribute):
            if node.attr != "__dict__" or not isinstance(node.ctx, ast.Load):  # of it there is a copy
                yield from _attribute(node.attr, line)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _BY_NAME:
            yield from _by_name(node, line)
        elif isinstance(node, ast.AsyncFunctionDef | ast.AsyncFor | ast.AsyncWith | ast.Await):
            yield Violation(line, "async", "there is no event loop", "write a plain function")


def _bound(tree: ast.AST) -> Iterator[str]:
    """Names that the source gives a meaning of its own."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            yield node.id
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name


def _attribute(name: str, line: int) -> Iterator[Violation]:
    private = name.startswith("_") and not is_dunder(name)
    if not readable(name) and not private and name != "__setattr__":
        yield Violation(line, "attribute", f"{name!r} leads into the interpreter", "use what the object is for")


def _by_name(node: ast.Call, line: int) -> Iterator[Violation]:
    name = node.args[1] if len(node.args) > 1 else None
    if isinstance(name, ast.Constant) and isinstance(name.value, str):
        yield from _attribute(name.value, line)
    else:
        hint = "write the name as a text, or keep the values in a dict"
        yield Violation(line, "computed-attribute", "the name of the attribute is computed", hint)


def _effects(tree: ast.Module) -> Iterator[Violation]:
    own = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    for node in tree.body:
        if not _quiet(node, own):
            hint = "put it into a function; constants, functions and classes may stand at the top"
            yield Violation(node.lineno, "effect", "this runs while the plugin is loaded", hint)


def _quiet(node: ast.stmt, own: set[str]) -> bool:
    """Whether a statement at the top only defines something. While a module is loaded no capability answers anyway."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Import | ast.ImportFrom | ast.Pass):
        return True
    if isinstance(node, ast.Expr):
        call = isinstance(node.value, ast.Call) and isinstance(node.value.func, ast.Attribute)
        return isinstance(node.value, ast.Constant) or (call and all(_harmless(part, own) for part in ast.walk(node)))
    if isinstance(node, ast.If | ast.For):
        head = node.test if isinstance(node, ast.If) else node.iter
        return all(_harmless(part, own) for part in ast.walk(head)) and all(
            _quiet(part, own) for part in (*node.body, *node.orelse)
        )
    if isinstance(node, ast.AugAssign | ast.Assert):
        return all(_harmless(part, own) for part in ast.walk(node))
    if isinstance(node, ast.Delete):
        return all(isinstance(target, ast.Name) for target in node.targets)
    if isinstance(node, ast.Try):  # an import that may fail, and what stands in for it
        blocks: list[ast.Try | ast.ExceptHandler] = [node, *node.handlers]
        return all(_quiet(part, own) for block in blocks for part in _within(block))
    if isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        plain = all(isinstance(target, ast.Name | ast.Tuple | ast.Subscript | ast.Attribute) for target in targets)
        return plain and all(_harmless(part, own) for part in ast.walk(node))
    return False


def _within(block: ast.Try | ast.ExceptHandler) -> list[ast.stmt]:
    return [part for field in ("body", "orelse", "finalbody") for part in getattr(block, field, [])]


def _harmless(node: ast.AST, own: set[str]) -> bool:
    if isinstance(node, ast.Call):
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        return name in _QUIET_CALLS or name in own
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow | ast.LShift | ast.Mult):
        return all(_small(side) for side in (node.left, node.right))
    return not isinstance(node, ast.NamedExpr | ast.Yield | ast.YieldFrom | ast.Await)


def _small(node: ast.expr) -> bool:
    return not isinstance(node, ast.Constant) or not isinstance(node.value, int) or abs(node.value) <= 10_000


_BRANCHES = (ast.If, ast.For, ast.While, ast.IfExp, ast.ExceptHandler, ast.BoolOp, ast.comprehension, ast.match_case)
_ENDS = (ast.Break, ast.Return, ast.Raise, ast.Yield, ast.YieldFrom)


def _functions(tree: ast.AST) -> Iterator[Violation]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            branches = sum(isinstance(part, _BRANCHES) for part in ast.walk(node))
            if branches > MAX_BRANCHES:
                hint = f"split it; {MAX_BRANCHES} are allowed"
                yield Violation(node.lineno, "complexity", f"{node.name} has {branches} branches", hint)
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > MAX_LINES:
                hint = f"split it; {MAX_LINES} are allowed"
                yield Violation(node.lineno, "length", f"{node.name} has {lines} lines", hint)
        elif isinstance(node, ast.While) and _endless(node):
            yield Violation(node.lineno, "endless", "this loop cannot end", "leave it with break or return")


def _endless(loop: ast.While) -> bool:
    forever = isinstance(loop.test, ast.Constant) and bool(loop.test.value)
    return forever and not any(isinstance(part, _ENDS) for part in ast.walk(loop))
