"""Errors as OpenAI's clients expect them: `{"error": {"message", "type", "param", "code"}}`."""

from __future__ import annotations

from typing import Any

from agentd.errors import AgentdError, BadInput, Busy, NoGrammar, NotFound, NotServed, TooLong

_OWN = ("/v1/config", "/v1/status")
"""Endpoints of agentd that lie below /v1; its own command line reads their errors."""
_AT_ROOT = (
    "/apply-template",
    "/chat/completions",
    "/completion",
    "/detokenize",
    "/embedding",
    "/infill",
    "/models",
    "/props",
    "/slots",
    "/tokenize",
)
"""Endpoints of llama.cpp's server, whose errors have the same form."""

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}
_CODES = {
    "auth.required": "invalid_api_key",
    "policy.denied": "permission_denied",
    "input.not_found": "not_found",
    "input.method": "method_not_allowed",
    "input.too_large": "request_too_large",
    "api.rate_limited": "rate_limit_exceeded",
    "model.busy": "rate_limit_exceeded",
    "model.too_long": "context_length_exceeded",
    "model.no_grammar": "invalid_schema",
    "model.missing": "model_unavailable",
}


class Refused(BadInput):
    """A request that is wrong; `param` names the field, such as `messages[0].content`."""

    def __init__(self, message: str, *, param: str | None = None, kind: str | None = None, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.param = param
        self.kind = kind


class UnknownModel(NotFound):
    """There is no model of this name."""

    param = "model"
    kind = "model_not_found"


def is_openai(path: str) -> bool:
    """Whether errors of this path are told in OpenAI's form."""
    return path.split("/")[1:2] == ["v1"] or path.startswith(_AT_ROOT)


def openai_status(error: AgentdError, status: int) -> int:
    """The status that OpenAI's clients understand, where it differs from `status`, agentd's own."""
    if isinstance(error, NoGrammar | NotServed):
        return 400
    return 429 if isinstance(error, Busy) else status


def error_object(error: AgentdError, status: int, path: str = "/v1") -> dict[str, Any]:
    """What stands under `error` in an answer of this status to a request for `path`."""
    body: dict[str, Any] = {
        "message": error.message,
        "type": _TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error"),
        "param": getattr(error, "param", None),
        "code": getattr(error, "kind", None) or _code(error, status),
    }
    if isinstance(error, TooLong):
        body |= {"n_prompt_tokens": error.tokens, "n_ctx": error.context}
        if path.startswith(_AT_ROOT):
            body["type"] = "exceed_context_size_error"
    if path.startswith(_OWN):
        return body | {"code": error.code, "hint": error.hint}
    if error.hint:
        # Most clients show nothing but the message.
        body["message"] = f"{error.message} ({error.hint})"
    return body


def _code(error: AgentdError, status: int) -> str | None:
    if error.code == "input.invalid":
        return None
    return _CODES.get(error.code, error.code)
