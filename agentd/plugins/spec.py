"""What a plugin is to do, in words that can be checked, and what is written beside its code."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

NAME = r"^[a-z][a-z0-9_]{2,39}$"
MAX_TEXT = 2_000
"""Characters of one text of a spec."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Permissions(_Frozen):
    """What a plugin may ask the daemon for; nothing that is not named. Globs are relative to the workspace."""

    read: tuple[str, ...] = Field(default=(), max_length=20)
    write: tuple[str, ...] = Field(default=(), max_length=20)
    http: tuple[str, ...] = Field(default=(), max_length=20)
    """Hosts."""

    @property
    def grants(self) -> frozenset[str]:
        """The capability façades that its code may import."""
        files = {"files"} if self.read or self.write else set()
        return frozenset(files | ({"http"} if self.http else set()))


class Example(_Frozen):
    """One call: the files that lie in the workspace before it, its result, and the files after it."""

    args: dict[str, Any]
    result: Any = None
    files: dict[str, str] = Field(default_factory=dict)
    files_after: dict[str, str] = Field(default_factory=dict)


class Spec(_Frozen):
    """The contract of a plugin: its tests are written from this alone, and its code has to fulfil it."""

    name: str = Field(pattern=NAME)
    purpose: str = Field(min_length=1, max_length=MAX_TEXT)
    """One sentence; becomes the tool's description."""
    input: dict[str, Any]
    """JSON Schema of the arguments, an object; a property may carry `x-grounding` (see `types.Grounding`)."""
    output: dict[str, Any]
    """JSON Schema of the result."""
    preconditions: tuple[str, ...] = Field(default=(), max_length=20)
    postconditions: tuple[str, ...] = Field(default=(), max_length=20)
    examples: tuple[Example, ...] = Field(min_length=1, max_length=8)
    requests: tuple[str, ...] = Field(default=(), max_length=12)
    """Requests that it serves, with `{parameter}` where a value stands, such as `Convert {path} to {target}`."""
    permissions: Permissions = Permissions()
    side_effects: str = Field(default="", max_length=MAX_TEXT)


class Evidence(_Frozen):
    """How a plugin came to be and what it withstood; kept with it and in the registry."""

    author: Literal["agent", "person"] = "agent"
    model: str = ""
    seed: int = 0
    attempts: int = 1
    """Of its code."""
    candidates: int = 1
    """Versions of its code that passed everything, of which it was the best."""
    seconds: float = 0.0
    """Of all its calls in the exam."""
    cases: int = 0
    """Asserting test cases that it passed."""
    fuzzed: int = 0
    """Inputs made from its schema that it withstood."""
    controls: int = 0
    """Wrong versions that its tests had to tell from it."""
    controls_killed: int = 0
    mutants: int = 0
    mutants_killed: int = 0
    used: Permissions = Permissions()
    """What it was seen to ask for in its trial."""
    imports: tuple[str, ...] = ()
    """Modules."""
    sandbox: str = ""
    """The level of the sandbox that the trial ran at."""
    python: str = ""
    restricted_python: str = ""
    review: str = ""


class Manifest(_Frozen):
    """`manifest.json` of a plugin's folder; the signature covers it, and through the digests all other files."""

    format: Literal[1] = 1
    version: int = Field(ge=1)
    created: float = 0.0
    """Unix seconds."""
    spec: Spec
    digests: dict[str, str] = Field(default_factory=dict)
    """SHA-256 in hex of each other file of the folder but the signature."""
    evidence: Evidence = Evidence()
