"""The modules that a plugin may import: façades, with just the names that stand here, never a module itself."""

from __future__ import annotations

import codecs
import importlib
import types
from collections.abc import Callable, Mapping
from typing import Any, Final

from .guards import CLASSES, Function
from .outside import CURRENT, request
from .replacements import GRANTED, REPLACED
from .stand_ins import STAND_INS

# What is taken from the standard library as it is. Left out: what opens files by itself, walks attributes by a name
# that it is told (`attrgetter`), or sets them (`wraps`); `replacements` has some of these in a form that can be given.
_TAKEN: Final = """
abc: ABC abstractmethod
array: array
base64: b64encode b64decode b32encode b32decode b16encode b16decode b85encode b85decode a85encode a85decode
base64: urlsafe_b64encode urlsafe_b64decode standard_b64encode standard_b64decode encodebytes decodebytes
binascii: hexlify unhexlify b2a_hex a2b_hex b2a_base64 a2b_base64 crc32 crc_hqx Error Incomplete
bisect: bisect bisect_left bisect_right insort insort_left insort_right
calendar: Calendar TextCalendar HTMLCalendar MONDAY TUESDAY WEDNESDAY THURSDAY FRIDAY SATURDAY SUNDAY isleap leapdays
calendar: weekday monthrange monthcalendar month_name month_abbr day_name day_abbr timegm month calendar
cmath: acos asin atan cos cosh e exp inf isclose isfinite isinf isnan log log10 nan phase pi polar rect sin sqrt tan tau
collections: Counter OrderedDict defaultdict deque ChainMap UserDict UserList
collections.abc: Callable Collection Container Generator Hashable ItemsView Iterable Iterator KeysView Mapping
collections.abc: MappingView MutableMapping MutableSequence MutableSet Reversible Sequence Set Sized ValuesView
colorsys: rgb_to_hls hls_to_rgb rgb_to_hsv hsv_to_rgb rgb_to_yiq yiq_to_rgb
contextlib: suppress closing nullcontext ExitStack
copy: copy deepcopy Error
csv: reader writer DictReader DictWriter Dialect excel excel_tab unix_dialect Error QUOTE_ALL QUOTE_MINIMAL
csv: QUOTE_NONNUMERIC QUOTE_NONE
dataclasses: field asdict astuple replace fields is_dataclass FrozenInstanceError MISSING
datetime: date datetime time timedelta timezone tzinfo MINYEAR MAXYEAR UTC
decimal: Decimal Context getcontext setcontext localcontext BasicContext ExtendedContext DecimalException
decimal: InvalidOperation DivisionByZero Inexact Rounded Clamped Overflow Underflow ROUND_UP ROUND_DOWN ROUND_CEILING
decimal: ROUND_FLOOR ROUND_HALF_UP ROUND_HALF_DOWN ROUND_HALF_EVEN ROUND_05UP
difflib: SequenceMatcher Differ HtmlDiff get_close_matches unified_diff context_diff ndiff restore IS_LINE_JUNK
difflib: IS_CHARACTER_JUNK
enum: auto
fnmatch: fnmatch fnmatchcase filter translate
fractions: Fraction
functools: reduce partial lru_cache cache cmp_to_key
graphlib: TopologicalSorter CycleError
hashlib: md5 sha1 sha224 sha256 sha384 sha512 sha3_224 sha3_256 sha3_384 sha3_512 blake2b blake2s new
heapq: heappush heappop heapify heappushpop heapreplace merge nlargest nsmallest
hmac: new digest compare_digest
html: escape unescape
html.entities: html5 name2codepoint codepoint2name
html.parser: HTMLParser
io: StringIO BytesIO TextIOWrapper SEEK_SET SEEK_CUR SEEK_END UnsupportedOperation
ipaddress: ip_address ip_network ip_interface IPv4Address IPv4Network IPv4Interface IPv6Address IPv6Network
ipaddress: IPv6Interface AddressValueError NetmaskValueError summarize_address_range collapse_addresses
itertools: accumulate batched chain combinations combinations_with_replacement compress count cycle dropwhile
itertools: filterfalse groupby islice pairwise permutations product repeat starmap takewhile tee zip_longest
json: loads dumps load dump JSONDecodeError JSONEncoder JSONDecoder
keyword: iskeyword issoftkeyword kwlist softkwlist
math: acos acosh asin asinh atan atan2 atanh cbrt ceil comb copysign cos cosh degrees dist e erf erfc exp exp2 expm1
math: fabs factorial floor fmod frexp fsum gamma gcd hypot inf isclose isfinite isinf isnan isqrt lcm ldexp lgamma log
math: log10 log1p log2 modf nan nextafter perm pi pow prod radians remainder sin sinh sqrt sumprod tan tanh tau
math: trunc ulp
numbers: Number Complex Real Rational Integral
operator: abs add and_ concat contains countOf delitem eq floordiv ge getitem gt iadd index indexOf inv invert is_
operator: is_not itemgetter le length_hint lshift lt matmul mod mul ne neg not_ or_ pos pow rshift sub truediv truth xor
operator: isub imul ior iand
os.path: join basename dirname splitext split normpath commonprefix commonpath isabs normcase sep extsep
pprint: pformat
re: A ASCII DOTALL I IGNORECASE M MULTILINE S U UNICODE VERBOSE X NOFLAG Match Pattern error escape purge
shlex: quote join
statistics: mean fmean geometric_mean harmonic_mean median median_low median_high median_grouped mode multimode pstdev
statistics: pvariance stdev variance quantiles covariance correlation linear_regression NormalDist StatisticsError
string: ascii_letters ascii_lowercase ascii_uppercase capwords digits hexdigits octdigits printable punctuation
string: whitespace Template
struct: pack unpack pack_into unpack_from iter_unpack calcsize Struct error
textwrap: wrap fill shorten dedent indent TextWrapper
time: time_ns monotonic_ns perf_counter_ns process_time ctime asctime
time: time perf_counter monotonic gmtime localtime strftime strptime mktime struct_time
tomllib: loads load TOMLDecodeError
types: MappingProxyType
unicodedata: bidirectional category combining decimal decomposition digit east_asian_width is_normalized lookup mirrored
unicodedata: name normalize numeric unidata_version
urllib.parse: quote quote_plus quote_from_bytes unquote unquote_plus unquote_to_bytes urlencode urljoin urlparse
urllib.parse: urlsplit urlunparse urlunsplit urldefrag parse_qs parse_qsl ParseResult SplitResult
uuid: UUID uuid3 uuid5 NAMESPACE_DNS NAMESPACE_URL NAMESPACE_OID NAMESPACE_X500
zlib: adler32 crc32 compress error
"""


_ENCODINGS = "ascii latin-1 cp1252 cp437 cp850 iso8859-15 utf-8-sig utf-16 utf-16-le utf-16-be utf-32 unicode_escape"


def _preload() -> None:
    """What the standard library would otherwise look for in files on the first use, when there are none any more."""
    importlib.import_module("_strptime")
    for name in _ENCODINGS.split():
        codecs.lookup(name)


_preload()


class Facade:
    """A module as a plugin sees it: names, and nothing else. It has no `__name__`, by which `from x import y` would
    find real modules."""

    __slots__ = ("_content",)

    def __init__(self, name: str, names: Mapping[str, Any]) -> None:
        object.__setattr__(self, "_content", (name, names))

    def __getattribute__(self, wanted: str) -> Any:
        name, names = _content(self)
        if wanted in names:
            return names[wanted]
        raise AttributeError(f"module {name!r} has no {wanted!r} here; it has {', '.join(sorted(names))[:1_000]}")

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError("a module cannot be changed")

    def __repr__(self) -> str:
        return f"<module {_content(self)[0]!r}>"


_content: Callable[[Any], tuple[str, Mapping[str, Any]]] = Facade.__dict__["_content"].__get__


class _Tested(dict[str, Any]):
    """The names of the façade `plugin`: every public one is a function of the plugin that is tested."""

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and not name.startswith("_")

    def __missing__(self, name: str) -> Any:
        return Function(lambda **args: _call_tested(self["Error"], name, args))


def _call_tested(error: type[Exception], entry: str, args: dict[str, Any]) -> Any:
    try:
        return request("plugin.call", entry=entry, args=args)
    except Exception as failure:
        raise error(str(failure)) from None


def given(value: Any) -> Any:
    """A thing of the host in the form in which a plugin may hold it."""
    if isinstance(value, type):
        CLASSES.add(value)
        return value
    return Function(value) if callable(value) and isinstance(value, _CALLABLE) else value


_CALLABLE = (types.FunctionType, types.BuiltinFunctionType, types.MethodType)


def _tables() -> dict[str, dict[str, Any]]:
    """Names by module. What this Python was built without is left out, so is a name that it does not know yet."""
    tables: dict[str, dict[str, Any]] = {}
    for line in _TAKEN.strip().splitlines():
        module_name, _, names = line.partition(": ")
        try:
            module = importlib.import_module(module_name)
        except ImportError:
            continue
        table = tables.setdefault(module_name, {})
        table.update((name, given(getattr(module, name))) for name in names.split() if hasattr(module, name))
    for module_name, replaced in (*REPLACED.items(), *STAND_INS.items()):
        tables.setdefault(module_name, {}).update((name, given(value)) for name, value in replaced.items())
    tables["posixpath"] = dict(tables["os.path"])
    return tables


def _tree(tables: dict[str, dict[str, Any]]) -> dict[str, Facade]:
    """Façades by full name; one of a package has those inside it."""
    for name in sorted(tables, key=lambda name: -name.count(".")):
        parent, _, last = name.rpartition(".")
        while parent:
            tables.setdefault(parent, {})[last] = Facade(name, tables[name])
            name, (parent, _, last) = parent, parent.rpartition(".")
    return {name: Facade(name, table) for name, table in tables.items()}


_FOR_PYTHON = frozenset({"_strptime", "json.decoder"})
"""What Python itself imports, when a plugin calls something that is written in C: it takes the module that is loaded,
not what it is answered."""
FACADES: Final = _tree(_tables())
CAPABILITIES: Final = {
    name: Facade(name, (_Tested if name == "plugin" else dict)((key, given(value)) for key, value in table.items()))
    for name, table in GRANTED.items()
}
"""Those that have to be granted."""


def import_facade(name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0) -> Facade:
    """`__import__` of a plugin. Raises ImportError for what is no façade, or not granted."""
    if name in _FOR_PYTHON:
        return Facade(name, {})
    granted = CURRENT.get().grants
    known = {**FACADES, **{key: value for key, value in CAPABILITIES.items() if key in granted}}
    if level or name not in known:
        there = ", ".join(sorted(known))
        raise ModuleNotFoundError(f"the module {name!r} cannot be imported here; there are {there}")
    return known[name] if fromlist else known[name.partition(".")[0]]
