"""The models that can be asked for: listed, described, and found by the name in a request."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from starlette.requests import HTTPConnection

from agentd.api.agent_model import NAME, agent_model, agent_names
from agentd.api.deps import Core
from agentd.api.openai.errors import Refused, UnknownModel
from agentd.app import App
from agentd.errors import NotFound
from agentd.types import Model, ModelRequest

router = APIRouter(tags=["openai"])


@router.get("/models")
def list_models(core: Core, request: Request) -> dict[str, Any]:
    """The models of the catalog that are there, then the agent itself at its levels."""
    return {"object": "list", "data": [_row(request, name) for name in _names(core)]}


@router.get("/models/{name:path}")
def show_model(core: Core, request: Request, name: str) -> dict[str, Any]:
    """One model; its name may hold slashes, and may be that of a role."""
    if name not in _names(core):
        resolve(core, request, name)
    return _row(request, name)


def resolve(core: App, request: HTTPConnection, name: str | None, *, role: str = "planner") -> Model:
    """The model of this name; that of `role` where none is named. Raises `UnknownModel`.

    A name that nobody knows gets the model of `api.unknown_model`, where the settings name one.
    """
    if not name:
        return core.models.for_role(role)
    if name == NAME or name.startswith(f"{NAME}/"):
        return _found(lambda: agent_model(core, request, name))
    stand_in = core.settings.api.unknown_model
    try:
        return core.models.named(name)
    except NotFound as error:
        if stand_in:
            return _found(lambda: core.models.named(stand_in))
        raise UnknownModel(error.message, hint=error.hint) from None


def prompt_of(model: Model, tokens: list[int]) -> str:
    """The text of token numbers. Raises `Refused` for a model whose tokens are not known here."""
    turn = getattr(model, "detokenize", None)
    if turn is None:
        raise Refused(f"{model.name} takes text, not numbers of tokens", hint="send the prompt as text")
    return str(turn(tokens))


def tokens_of(model: Model, text: str, param: str) -> list[int]:
    """The tokens of a text in which no control tokens are looked for. Raises `Refused` as `prompt_of` does."""
    turn = getattr(model, "tokenize", None)
    if turn is None:
        raise Refused(f"{model.name} has no tokens that are known here", param=param, hint="leave it out")
    return list(turn(text)["tokens"])


def rendered(model: Model, request: ModelRequest) -> str:
    """The prompt that a conversation becomes. Raises `Refused` for a model whose template is not known here."""
    render = getattr(model, "render", None)
    if render is None:
        raise Refused(f"how {model.name} is prompted is not known here", param="model")
    tools = request.tools if request.tool_choice != "none" else ()
    return str(render(request.messages, tools=tools, think=request.think))


def counted(model: Model, request: ModelRequest) -> dict[str, Any]:
    """The tokens that a conversation has as a prompt. Raises what `rendered` does."""
    count = getattr(model, "tokenize", None)
    if count is None:
        raise Refused(f"{model.name} has no tokens that are known here", param="model")
    found = count(rendered(model, request), special=True, controls=True)
    return {"object": "response.input_tokens", "input_tokens": len(found["tokens"])}


def _names(core: App) -> list[str]:
    return [*core.models.names(), *agent_names(core)]


def _row(request: Request, name: str) -> dict[str, Any]:
    created = int(request.app.state.started)
    owner = "agentd" if name == NAME or name.startswith(f"{NAME}/") else "local"
    return {"id": name, "object": "model", "created": created, "owned_by": owner}


def _found(find: Any) -> Model:
    try:
        model: Model = find()
    except NotFound as error:
        raise UnknownModel(error.message, hint=error.hint) from None
    return model
