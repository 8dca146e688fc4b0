"""Holds a reply to a JSON Schema or a grammar, token by token; no schema of a client can end the process."""

from __future__ import annotations

import json
import math
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, Protocol, TypeAlias, TypeVar
from weakref import WeakKeyDictionary, ref

import numpy as np
from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper
from llguidance.gbnf_to_lark import gbnf_to_lark
from numpy.typing import NDArray

from agentd.errors import NoGrammar

Floats: TypeAlias = NDArray[np.float32]
_Source: TypeAlias = tuple[str, tuple[str, ...]]
"""For llguidance, and the keywords that were left out."""
_Compiled: TypeAlias = tuple[LLMatcher, tuple[str, ...]]
T = TypeVar("T")

_LONGEST = 300_000
"""Characters of a schema or grammar."""
_DEEPEST = 60
"""Schemas within schemas."""
_MOST_PARTS = 20_000
_MOST_PROPERTIES = 2_000
"""Of one object. Ten thousand optional ones take five seconds to compile."""
_MOST_REFERENCES = 1_000
_MOST_RULES = 10_000
_BIGGEST_MULTIPLE = 100_000
"""A `multipleOf` becomes an automaton with one state for each remainder."""
_BIGGEST_BOUND = 10**18
_STACK = 256 << 20
"""Bytes. Compiling recurses along references and rules, in native code that cannot notice the end of its stack."""
_PATIENCE = 10.0
_MOST_KEPT = 8
_MOST_STATES = 150_000
"""Of the automaton for strings; half a kilobyte each, made when needed. `maxLength` needs one for each character."""
_FUEL = 1_000_000
"""Expressions that may be made before the next mask is; some 20 to 70 milliseconds."""
_REFILL = 256
"""Tokens after which a mask is made, because only that gives new fuel."""
_WHITESPACE = r"[ ]|\r?\n[ \t]{0,40}"
"""Between the parts of JSON: one space, or a new line with its indentation; never an endless run."""
_OPTIONS: Any = {"lenient": True, "coerce_one_of": True, "whitespace_pattern": _WHITESPACE}

_UNHELD = frozenset(
    {"not", "if", "then", "else", "contains", "minContains", "maxContains", "uniqueItems", "propertyNames"}
    | {"dependencies", "dependentRequired", "dependentSchemas", "unevaluatedItems", "unevaluatedProperties"}
)
"""Keywords that no grammar can hold; the reply is validated after."""
_WORDS = frozenset(
    {"title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly", "$comment", "x-guidance"}
    | {"contentEncoding", "contentMediaType", "contentSchema"}
)
"""Keywords that say nothing about the form. `x-guidance` would reach the compiler's own settings."""
_PARTS = frozenset(("additionalProperties", "items", "additionalItems"))
_LISTS = frozenset(("allOf", "anyOf", "oneOf", "prefixItems", "items"))
_NAMED = frozenset(("properties", "patternProperties", "$defs", "definitions"))
_BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
_NO_AUTOMATON = re.compile(r"\(\?(?:[=!]|<[=!])|\\[1-9]|\\k<|\\[bB]")
_GBNF = re.compile(r"^[ \t]*[\w-]+[ \t]*::=", re.MULTILINE)
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|.)", re.DOTALL)


class Vocabulary(Protocol):
    """What must be known of a model's tokens."""

    @property
    def size(self) -> int: ...
    @property
    def ends(self) -> Sequence[int]:
        """Tokens that end a text."""
        ...

    def piece(self, token: int) -> bytes:
        """The bytes of a token; nothing for a control token."""
        ...

    def tokens(self, text: str, *, controls: bool) -> list[int]: ...


class Grammar:
    """Where one reply stands in its grammar. Every method raises `NoGrammar` when the grammar leads nowhere."""

    def __init__(self, vocabulary: Vocabulary, *, schema: Any = None, grammar: str | None = None) -> None:
        """`grammar` is Lark or GBNF. Raises `NoGrammar` for what cannot be compiled; takes up to some seconds for a
        hostile one, without holding the interpreter's lock."""
        self._compiler = _compiler(vocabulary)
        compiled = self._compiler.schema(schema) if grammar is None else self._compiler.grammar(grammar)
        self._prototype, self.relaxed = compiled
        self._matcher: LLMatcher = self._prototype.deep_copy()
        self._accepted = 0
        self._size = vocabulary.size
        self._ends = frozenset(vocabulary.ends)

    relaxed: tuple[str, ...]
    """Keywords of the schema that are not held; the reply has to be validated for them."""

    def allows(self, token: int) -> bool:
        if token in self._ends:
            return self.may_end
        allowed = self._matcher.validate_tokens([token]) == 1
        return allowed or self._sound(allowed)

    def restrict(self, logits: Floats) -> Floats:
        """The logits with everything that the grammar forbids at minus infinity."""
        mask = np.frombuffer(self._sound(self._matcher.compute_bitmask()), dtype=np.uint8)
        allowed = np.unpackbits(mask, count=self._size, bitorder="little").view(np.bool_)
        if not allowed.any():
            raise NoGrammar("the grammar leaves no way on", hint=_HINT)
        return np.where(allowed, logits, np.float32(-np.inf))

    def accept(self, token: int) -> None:
        """Go on by a token that is allowed; a token that ends the text changes nothing."""
        if token in self._ends:
            return
        self._accepted += 1
        if self._accepted % _REFILL == 0:
            self._matcher.compute_bitmask()
        if not self._matcher.consume_token(token):
            self._sound(None)
            raise NoGrammar(f"token {token} does not fit the grammar", hint=_HINT)

    def forced(self) -> list[int]:
        """Tokens that must come now, because the grammar leaves no other text."""
        return self._sound(self._matcher.compute_ff_tokens())

    @property
    def may_end(self) -> bool:
        """Whether the reply is whole if it ends here."""
        return self._sound(self._matcher.is_accepting())

    @property
    def finished(self) -> bool:
        """Whether nothing may come any more."""
        return self._sound(self._matcher.is_stopped())

    def close(self) -> None:
        """Gives the memory back."""
        del self._matcher, self._prototype

    def _sound(self, value: T) -> T:
        if self._matcher.is_error():
            self._compiler.forget(self._prototype)  # it shares what its copies have learned, also that it is too big
            raise NoGrammar(f"the grammar cannot be followed: {_reason(self._matcher.get_error())}", hint=_HINT)
        return value


_HINT = "use a simpler schema or grammar"
_COMPILERS: WeakKeyDictionary[Vocabulary, _Compiler] = WeakKeyDictionary()
_GUARD = threading.Lock()


def _compiler(vocabulary: Vocabulary) -> _Compiler:
    with _GUARD:
        if vocabulary not in _COMPILERS:
            _COMPILERS[vocabulary] = _Compiler(vocabulary)
        return _COMPILERS[vocabulary]


class _Compiler:
    """Makes grammars for one vocabulary and keeps the latest; one at a time, so that hostile ones cannot pile up."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._tokenizer = LLTokenizer(
            TokenizerWrapper(_Tokens(vocabulary)),
            n_vocab=vocabulary.size,
            eos_token=list(vocabulary.ends) or None,
            slices=LLTokenizer.json_slices(),
        )
        self._limits = LLParserLimits(
            max_items_in_row=20_000,
            step_max_items=200_000,
            initial_lexer_fuel=_FUEL,
            step_lexer_fuel=_FUEL,
            max_lexer_states=_MOST_STATES,
            max_grammar_size=100_000,
            verbose_errors=False,
        )
        self._kept: OrderedDict[str, _Compiled] = OrderedDict()
        self._busy = threading.Lock()

    def schema(self, schema: Any) -> _Compiled:
        try:
            text = json.dumps(schema, allow_nan=False)
        except (ValueError, TypeError, RecursionError) as error:
            raise NoGrammar(f"this JSON schema cannot be written down: {error}", hint=_HINT) from None
        return self._made("schema " + text, lambda: _schema_source(schema, text))

    def grammar(self, text: str) -> _Compiled:
        return self._made("grammar " + text, lambda: _grammar_source(text))

    def forget(self, matcher: LLMatcher) -> None:
        # Without the lock: whoever follows a grammar must not wait until another one is compiled.
        for key in [key for key, made in list(self._kept.items()) if made[0] is matcher]:
            self._kept.pop(key, None)

    def _made(self, key: str, source: Callable[[], _Source]) -> _Compiled:
        if len(key) > _LONGEST:
            raise NoGrammar(f"{len(key)} characters of grammar; the most are {_LONGEST}", hint=_HINT)
        if not self._busy.acquire(timeout=_PATIENCE):
            raise NoGrammar("another grammar is still being compiled", hint="try again later")
        known = self._kept.pop(key, None)
        if known is not None:
            self._kept[key] = known  # the latest now
            self._busy.release()
            return known
        outcome: list[_Compiled | NoGrammar] = []
        try:
            thread = _with_stack(lambda: self._compile(key, source, outcome))
        except RuntimeError as error:
            self._busy.release()
            raise NoGrammar(f"there is no room to compile a grammar: {error}", hint="try again later") from None
        thread.join(_PATIENCE)
        if not outcome:
            raise NoGrammar(f"the grammar is not compiled after {_PATIENCE:.0f} seconds", hint=_HINT)
        if isinstance(outcome[0], NoGrammar):
            raise outcome[0]
        return outcome[0]

    def _compile(self, key: str, source: Callable[[], _Source], outcome: list[_Compiled | NoGrammar]) -> None:
        """Runs in a thread of its own; leaves the grammar, or why there is none."""
        try:
            text, relaxed = source()
            matcher = LLMatcher(self._tokenizer, text, log_level=0, limits=self._limits)
            if not matcher.is_error():
                matcher.compute_bitmask()  # some grammars are found to be too big, or to hold nothing, only here
            if matcher.is_error():
                raise NoGrammar(f"no grammar can be made of this: {_reason(matcher.get_error())}", hint=_HINT)
            self._kept[key] = (matcher, (*relaxed, *matcher.get_grammar_warnings()))
            outcome.append(self._kept[key])
            if len(self._kept) > _MOST_KEPT:
                self._kept.popitem(last=False)
        except NoGrammar as error:
            outcome.append(error)
        except BaseException as error:  # a panic of native code is no Exception
            outcome.append(
                NoGrammar(f"no grammar can be made of this: {type(error).__name__}: {error}"[:300], hint=_HINT)
            )
        finally:
            self._busy.release()


def _with_stack(run: Callable[[], None]) -> threading.Thread:
    """A thread that will have a big stack, started."""
    with _GUARD:
        usual = threading.stack_size(_STACK)
        try:
            thread = threading.Thread(target=run, daemon=True)
            thread.start()
        finally:
            threading.stack_size(usual)
    return thread


class _Tokens:
    """A vocabulary in the words of llguidance."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.tokens = [vocabulary.piece(token) for token in range(vocabulary.size)]
        self.special_token_ids = [token for token, piece in enumerate(self.tokens) if not piece]
        self.eos_token_id = vocabulary.ends[0] if vocabulary.ends else vocabulary.size - 1
        self.bos_token_id = None
        self._vocabulary = ref(vocabulary)

    def __call__(self, text: str | bytes) -> list[int]:
        text = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
        vocabulary = self._vocabulary()
        return [] if vocabulary is None else vocabulary.tokens(text, controls=False)


def _schema_source(schema: Any, text: str) -> _Source:
    """What llguidance compiles, and which keywords were left out."""
    if not isinstance(schema, Mapping) and schema is not True:
        raise NoGrammar(f"a JSON schema is an object, not {schema!r:.60}", hint=_HINT)
    if text.count('"$ref"') > _MOST_REFERENCES:
        raise NoGrammar(f"the JSON schema has more than {_MOST_REFERENCES} references", hint=_HINT)
    parts = list(_objects(schema))
    multiples = _can_be_multiples(part["multipleOf"] for part in parts if "multipleOf" in part)
    simplified = _Simplified(multiples=multiples, closing=not any(map(_combines, parts)))
    plain = simplified.schema(schema, 0)
    relaxed = tuple(sorted(simplified.relaxed))
    plain = {} if plain is True else plain
    return LLMatcher.grammar_from_json_schema(json.dumps(plain), overrides=_OPTIONS), relaxed


class _Simplified:
    """Copies a schema without what the grammar does not need or cannot hold. Raises `NoGrammar` for a too big one."""

    def __init__(self, *, multiples: bool, closing: bool) -> None:
        """`multiples`: whether `multipleOf` is kept; `closing`: whether what says nothing of more fields gets none."""
        self.relaxed: set[str] = set()
        self._multiples = multiples
        self._closing = closing
        self._parts = 0

    def schema(self, schema: Any, depth: int) -> Any:
        if not isinstance(schema, Mapping):
            return schema
        self._parts += 1
        if depth > _DEEPEST or self._parts > _MOST_PARTS:
            limit = f"nested deeper than {_DEEPEST}" if depth > _DEEPEST else f"of more than {_MOST_PARTS} parts"
            raise NoGrammar(f"the JSON schema is {limit}", hint=_HINT)
        self.relaxed |= _UNHELD & schema.keys()
        made = {key: self._value(key, value, depth + 1) for key, value in schema.items() if self._holds(key, value)}
        if self._closing and _can_be_closed(made):
            made["additionalProperties"] = False
        return made

    def _holds(self, key: str, value: Any) -> bool:
        if key in _WORDS or key in _UNHELD:
            return False
        held = not (
            (key == "pattern" and isinstance(value, str) and _NO_AUTOMATON.search(value.replace("\\\\", "")))
            or (key in _BOUNDS and _is_number(value) and abs(value) > _BIGGEST_BOUND)
            or (key == "multipleOf" and not self._multiples)
        )
        if not held:
            self.relaxed.add(key)
        return held

    def _value(self, key: str, value: Any, depth: int) -> Any:
        if key in _LISTS and isinstance(value, list):
            return [self.schema(part, depth) for part in value]
        if key in _NAMED and isinstance(value, Mapping):
            if len(value) > _MOST_PROPERTIES:
                raise NoGrammar(f"{len(value)} {key} in the JSON schema; the most are {_MOST_PROPERTIES}", hint=_HINT)
            return {name: self.schema(part, depth) for name, part in value.items()}
        return self.schema(value, depth) if key in _PARTS else value


def _objects(schema: Any) -> Iterator[Mapping[str, Any]]:
    """Every object in the schema, wherever it stands."""
    rest = [schema]
    while rest:
        part = rest.pop()
        if isinstance(part, Mapping):
            yield part
            rest += part.values()
        elif isinstance(part, list):
            rest += part


def _combines(part: Mapping[str, Any]) -> bool:
    """Whether fields of one value are described in several places."""
    return "allOf" in part or len(part.keys() & {"$ref", "$dynamicRef", "properties", "anyOf", "oneOf"}) > 1


def _can_be_closed(part: Mapping[str, Any]) -> bool:
    """Models add fields without end where they may, though the schema's author hardly ever meant that."""
    properties = part.get("properties")
    if not isinstance(properties, dict) or part.keys() & {"additionalProperties", "patternProperties", "minProperties"}:
        return False
    required = part.get("required", [])
    return isinstance(required, list) and all(name in properties for name in map(str, required))


def _can_be_multiples(values: Iterable[Any]) -> bool:
    """Whether the automaton for all of these at once stays small."""
    steps = {abs(Decimal(str(value))).normalize() for value in values if _is_number(value) and value}
    if any(not Decimal("1e-9") < step < Decimal("1e9") for step in steps):
        return False
    places = max((-int(step.as_tuple().exponent) for step in steps), default=0)
    return math.lcm(*(int(step.scaleb(max(places, 0))) for step in steps)) <= _BIGGEST_MULTIPLE


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _grammar_source(text: str) -> _Source:
    """Lark as it is, GBNF made Lark."""
    if text.count(":") > _MOST_RULES or text.count("$ref") > _MOST_REFERENCES:
        raise NoGrammar(f"the grammar has more than {_MOST_RULES} rules", hint=_HINT)
    if "multipleOf" in text:
        raise NoGrammar("`multipleOf` inside of a grammar is not supported", hint="use a JSON schema")
    if _GBNF.search(text):
        try:
            text = gbnf_to_lark(_ESCAPE.sub(_written_out, text))
        except Exception as error:  # the converter raises plain Exception, and whatever its slips make
            raise NoGrammar(f"this GBNF cannot be read: {type(error).__name__}: {error}"[:300], hint=_HINT) from None
    return LLMatcher.grammar_from_lark(text), ()


def _written_out(escape: re.Match[str]) -> str:
    """A character in place of its number, as the converter loses zeros; those of ASCII have another escape."""
    number = int(escape[1] or escape[2] or "0", 16)
    if not number or 0xD800 <= number <= 0xDFFF or number > 0x10FFFF:
        return escape[0]
    return chr(number) if number > 0x7F else f"\\x{number:02x}"


def _reason(text: str) -> str:
    if "NoExtension" in text:
        return "no text at all fits it"
    lines = [line.strip() for line in text.splitlines() if line.strip()] or ["no reason given"]
    return next((line for line in lines if line.startswith("error: ")), lines[0])[:300]
