"""Bodies of requests: JSON from strangers, read strictly, then held to a form that ignores what it does not know."""

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from agentd.api.openai.errors import Refused

DEEPEST = 100
"""Objects and arrays inside each other."""
_STRUCTURE = re.compile(r'"(?:[^"\\]|\\.)*+"|[\[{]|[\]}]', re.DOTALL)
_ESCAPED_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")

T = TypeVar("T", bound="Body")


class Body(BaseModel):
    """Clients send many fields that mean nothing here; those that do have exact types."""

    model_config = ConfigDict(extra="ignore", strict=True, allow_inf_nan=False)


def read_json(raw: bytes) -> dict[str, Any]:
    """The JSON object in a body. Raises `Refused` for anything else, and for what is JSON only to some."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _no_json(f"byte {error.start} is no UTF-8") from None
    if not text.strip():
        raise _no_json("it is empty")
    _refuse_depth(text)
    try:
        found = json.loads(text, parse_constant=_no_number, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise _no_json(str(error)) from None
    if _ESCAPED_SURROGATE.search(text):
        _refuse_surrogates(found)
    if not isinstance(found, dict):
        raise Refused(f"the body is JSON, but no object: {text[:60]!r}")
    return found


def parse(form: type[T], fields: dict[str, Any]) -> T:
    """The fields as a `form`; `Refused` names the first that is wrong."""
    try:
        return form.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        param = _param(first["loc"])
        if first["type"] == "missing":
            raise Refused(f"{param} is missing", param=param, kind="missing_required_parameter") from None
        said = first["msg"].removeprefix("Value error, ")
        raise Refused(
            f"{param}: {said}, got {_shown(first['input'])}", param=param, kind=_kind(first["type"])
        ) from None


def _param(place: tuple[int | str, ...]) -> str:
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place)
    return text.removeprefix(".") or "body"


def _kind(problem: str) -> str:
    return "invalid_type" if problem.endswith("_type") else "invalid_value"


def _shown(value: Any) -> str:
    return ascii(value) if len(ascii(value)) <= 80 else f"{ascii(value)[:80]}…"


def _refuse_depth(text: str) -> None:
    depth = 0
    for found in _STRUCTURE.finditer(text):
        mark = found[0][0]
        if mark in "[{":
            depth += 1
            if depth > DEEPEST:
                raise _no_json(f"it is nested more than {DEEPEST} deep")
        elif mark in "]}":
            depth -= 1


def _refuse_surrogates(value: Any) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        raise _no_json("a text in it has half of a surrogate pair") from None


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"the number {text[:40]} is too large")
    return number


def _no_json(why: str) -> Refused:
    return Refused(f"the body is not JSON in UTF-8: {why[:200]}", kind="invalid_json")
