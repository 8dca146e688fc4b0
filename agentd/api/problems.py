"""Errors as HTTP answers: a status for each code, and one JSON form; below /v1 that of OpenAI."""

from __future__ import annotations

import math
from collections.abc import Callable

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from agentd.api.openai.errors import error_object, is_openai, openai_status
from agentd.errors import AgentdError, BadInput
from agentd.security.scan import redact
from agentd.telemetry import get_logger

log = get_logger(__name__)

_STATUS = {
    "input.invalid": 400,
    "tool.misused": 400,
    "auth.required": 401,
    "plugin.refused": 403,
    "policy.denied": 403,
    "policy.needs_approval": 403,
    "input.not_found": 404,
    "input.method": 405,
    "conflict": 409,
    "config.invalid": 409,
    "policy.invalid": 409,
    "daemon.already_running": 409,
    "input.too_large": 413,
    "api.rate_limited": 429,
    "tool.failed": 422,
    "download.failed": 502,
    "model.bad_reply": 502,
    "model.broken_reply": 502,
    "model.busy": 503,
    "model.died": 503,
    "model.failed": 503,
    "model.memory": 503,
    "model.missing": 503,
    "model.no_grammar": 422,
    "model.not_served": 422,
    "model.refused": 502,
    "model.server_failed": 502,
    "model.too_long": 422,
    "model.too_slow": 504,
    "model.unreachable": 503,
    "sandbox.unavailable": 503,
    "store.unusable": 503,
    "daemon.stopping": 503,
    "daemon.unreachable": 503,
    "store.disk_full": 507,
}


class TooLarge(BadInput):
    """A body of more bytes than the daemon takes."""

    code = "input.too_large"


def answer(error: AgentdError) -> ASGIApp:
    """The answer that says what failed, as an ASGI application: whoever is asked decides its form."""

    async def said(scope: Scope, receive: Receive, send: Send) -> None:
        await answer_to(scope["path"], error)(scope, receive, send)

    return said


def answer_to(path: str, error: AgentdError) -> JSONResponse:
    """The answer to a request for `path`."""
    status = status_of(error, path)
    body = error_object(error, status, path) if is_openai(path) else error.as_json()
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else {}
    if error.retry_after is not None:
        headers["Retry-After"] = str(math.ceil(error.retry_after))
    # What is at fault may be quoted, and half a character in it cannot be sent.
    sent = {name: _sendable(value) if isinstance(value, str) else value for name, value in body.items()}
    return JSONResponse({"error": sent}, status_code=status, headers=headers)


def status_of(error: AgentdError, path: str) -> int:
    """The HTTP status of an error of a request for `path`."""
    status = _STATUS.get(error.code, 409 if error.code.startswith("task.") else 500)
    return openai_status(error, status) if is_openai(path) else status


def install(api: FastAPI, redact: Callable[[str], str] = redact) -> None:
    """Let every error leave in the one form, without secrets that it quotes."""

    def told(request: Request, error: AgentdError) -> JSONResponse:
        error.message, error.hint = redact(error.message), redact(error.hint)
        return answer_to(request.url.path, error)

    @api.exception_handler(AgentdError)
    async def known(request: Request, error: AgentdError) -> JSONResponse:
        return told(request, error)

    @api.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        return told(request, BadInput("; ".join(_describe(e) for e in error.errors()), hint="see /openapi.json"))

    @api.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> JSONResponse:
        problem = AgentdError(f"{error.detail}: {request.method} {request.url.path}", hint="see /openapi.json")
        problem.code = {404: "input.not_found", 405: "input.method"}.get(error.status_code, "input.invalid")
        found = told(request, problem)
        found.headers.update(error.headers or {})
        return found

    @api.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> JSONResponse:
        log.error("a request failed", method=request.method, path=request.url.path, exc_info=error)
        unknown = AgentdError(f"internal error: {type(error).__name__}: {error}", hint="the daemon's log says more")
        return told(request, unknown)


def _sendable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def _describe(error: dict[str, object]) -> str:
    place = error["loc"]
    parts = [str(part) for part in place if part not in ("body", "query", "header")] if isinstance(place, tuple) else []
    where = ".".join(parts) or "the request"
    if error["type"] == "json_invalid":
        return "the body is not JSON in UTF-8"
    if error["type"] == "missing":
        return f"{where}: missing"
    return f"{where}: {error['msg']}, got {error['input']!r:.120}"
