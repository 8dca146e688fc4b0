"""One request on its way to a model: its listener, its time, its tries, and a race of two servers when asked for."""

from __future__ import annotations

import math
import queue
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt, stop_before_delay
from tenacity.stop import stop_any, stop_base
from tenacity.wait import wait_exponential_jitter

from agentd.backends.catalog import ModelEntry
from agentd.backends.health import Balance, Health, Site
from agentd.config import RouterSettings
from agentd.errors import BrokenReply, Busy, Cancelled, Denied, ModelError, ServerDown, ServerFailed, TooSlow
from agentd.types import CallDelta, Delta, Model, ModelReply, ModelRequest, OnDelta

T = TypeVar("T")

_WORD = re.compile(r"\s*\S+|\s+")
_POLL = 0.05
_FAIR = 5.0
"""Seconds for which a server must have been silent before it counts as too slow."""
_USUAL = 2.0
"""Seconds that a server is given before a second one is asked, until it is known how long it takes."""
_LONGEST_PAUSE = 10.0
"""Seconds between two tries, unless the server asks for more."""


class Listener:
    """Hands deltas on, and knows whether there was one: from then on nobody else may be asked."""

    def __init__(self, on_delta: OnDelta) -> None:
        self._on_delta = on_delta
        self.reached = False

    def __call__(self, delta: Delta) -> None:
        self.reached = True
        self._on_delta(delta)

    def play(self, reply: ModelReply) -> None:
        """A whole reply at once."""
        for delta in deltas_of(reply):
            self(delta)


def deltas_of(reply: ModelReply) -> Iterator[Delta]:
    """Deltas that make up a whole reply: by its tokens where they are known, else by its words."""
    for word in _WORD.findall(reply.reasoning):
        yield Delta(reasoning=word)
    if reply.logprobs and "".join(token.token for token in reply.logprobs) == reply.text:
        for token in reply.logprobs:
            yield Delta(text=token.token, logprobs=(token,))
    else:
        if reply.logprobs:
            yield Delta(logprobs=reply.logprobs)
        for word in _WORD.findall(reply.text):
            yield Delta(text=word)
    for index, call in enumerate(reply.tool_calls):
        yield Delta(call=CallDelta(index=index, id=call.id, name=call.name, arguments=call.arguments))


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A request with who listens to its reply, and when it must be over (on `time.monotonic()`)."""

    request: ModelRequest
    listener: Listener | None = None
    cancel: threading.Event | None = None
    deadline: float

    @property
    def reached(self) -> bool:
        """Whether a part of a reply has reached the listener."""
        return self.listener is not None and self.listener.reached

    @property
    def left(self) -> float:
        """Seconds until the deadline."""
        return self.deadline - time.monotonic()

    def check(self) -> None:
        if self.cancel is not None and self.cancel.is_set():
            raise Cancelled("the request was cancelled")

    def wait(self, seconds: float) -> None:
        """Raises `Cancelled`."""
        if self.cancel is None:
            time.sleep(seconds)
        else:
            self.cancel.wait(seconds)
            self.check()

    def play(self, reply: ModelReply) -> None:
        if self.listener is not None:
            self.listener.play(reply)


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A model of the catalog with the places where it runs."""

    entry: ModelEntry
    balance: Balance
    model: Callable[[Site], Model]
    draft: Candidate | None = None
    """A smaller model that is asked first, where what it says can be checked."""

    @property
    def name(self) -> str:
        return self.entry.name

    @property
    def compact(self) -> bool:
        """Servers cannot score, so no model of theirs is spoken to as a compact one."""
        return self.entry.profile.compact and not self.remote

    @property
    def remote(self) -> bool:
        return self.entry.server is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    reply: ModelReply
    candidate: Candidate


class Witness:
    """Hears a model's deltas on their way, and so knows when it last gave a sign of life."""

    def __init__(self, health: Health, on_delta: OnDelta | None = None) -> None:
        self._health = health
        self._on_delta = on_delta
        self._began = self._last = time.monotonic()

    def __call__(self, delta: Delta) -> None:
        self._last = time.monotonic()
        if self._health.on_trial:
            self._health.lives()
        if self._on_delta is not None:
            self._on_delta(delta)

    @property
    def seconds(self) -> float:
        """Since the request."""
        return time.monotonic() - self._began

    @property
    def silence(self) -> float:
        """Seconds since the last delta, or the request."""
        return time.monotonic() - self._last


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """One try at one site, which was entered before; its health hears how the try went."""

    candidate: Candidate
    site: Site
    cancel: threading.Event = field(default_factory=threading.Event)
    """Of a lane in a race."""

    def chat(self, call: Call, on_delta: OnDelta | None, cancel: threading.Event | None) -> Answer:
        request = replace(call.request, timeout=max(0.001, call.left))
        witness = Witness(self.site.health, on_delta)
        # A local model is spared the work of telling each token to nobody.
        hear = witness if self.candidate.remote else on_delta
        reply = self._run(lambda model: model.chat(request, hear, cancel), witness)
        self.site.health.succeeded(witness.seconds)
        return Answer(reply=reply, candidate=self.candidate)

    def run(self, do: Callable[[Model], T]) -> T:
        """What `do` gives for the model; how long it takes says nothing about the time that replies take."""
        done = self._run(do, Witness(self.site.health))
        self.site.health.succeeded()
        return done

    def _run(self, do: Callable[[Model], T], witness: Witness) -> T:
        health = self.site.health
        try:
            return do(self.candidate.model(self.site))
        except BaseException as error:
            if self.candidate.remote and isinstance(error, Busy):
                health.paused(error.retry_after or 1.0, error.message)
            elif self.candidate.remote and _is_to_blame(error, witness.silence):
                health.failed(str(error).partition("\n")[0])
            else:
                health.left()
            raise


@dataclass(frozen=True, slots=True, kw_only=True)
class Tries:
    """How a candidate is asked: again after what may pass, as long as nothing has reached the listener."""

    settings: Callable[[], RouterSettings]

    def chat(self, candidate: Candidate, call: Call, later: Sequence[Candidate] = ()) -> Answer:
        """`later` can be asked after the candidate, and against it in a race. Raises `ModelError`, `Cancelled`."""

        def once(lane: Lane) -> Answer:
            if not (call.request.hedge and candidate.remote):
                return lane.chat(call, call.listener, call.cancel)
            delay = self.settings().hedge_after or lane.site.health.usual or _USUAL
            return Race(call).run(lane, lambda: _rival(lane, (candidate, *later)), delay)

        return self._again(candidate, call, once, patient=not later)

    def run(self, candidate: Candidate, call: Call, do: Callable[[Model], T]) -> T:
        """What `do` gives for the model at one of the candidate's sites. Raises like `chat`."""
        return self._again(candidate, call, lambda lane: lane.run(do), patient=True)

    def _again(self, candidate: Candidate, call: Call, once: Callable[[Lane], T], *, patient: bool) -> T:
        used: list[Site] = []
        longest = call.left if patient else min(call.left, self.settings().patience)

        class GiveUp(stop_base):
            def __call__(self, state: RetryCallState) -> bool:
                return candidate.balance.broken or state.upcoming_sleep > longest

        def attempt() -> T:
            call.check()
            if call.left <= 0:
                raise TooSlow(f"{candidate.name} had no time left to reply", hint="allow more time")
            return once(_lane(candidate, used))

        retrying = Retrying(
            retry=retry_if_exception(lambda error: not call.reached and _may_pass(error, candidate)),
            stop=stop_any(stop_after_attempt(self.settings().tries), stop_before_delay(call.left), GiveUp()),
            wait=lambda state: _pause(state, candidate, used, self.settings().pause),
            sleep=call.wait,
            reraise=True,
        )
        return retrying(attempt)


class Race:
    """A server is asked, and a second one when the first is slow; the first whole reply counts, the other is cancelled.

    Deltas of the first pass at once until the second is asked. From then on they are kept, and only those of the winner
    are handed on; a first that has begun to speak by then is not raced against.
    """

    def __init__(self, call: Call) -> None:
        self._call = call
        self._ended: queue.SimpleQueue[tuple[Lane, Answer | BaseException]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._open = True
        self._kept: dict[int, list[Delta]] = {}

    def run(self, first: Lane, rival: Callable[[], Lane | None], delay: float) -> Answer:
        """`rival` gives the second lane, entered, or None; `delay` in seconds."""
        lanes = [first]
        self._start(first)
        alone_until = time.monotonic() + delay
        failures: list[BaseException] = []
        try:
            while True:
                try:
                    lane, end = self._ended.get(timeout=_POLL)
                except queue.Empty:
                    self._call.check()
                    if time.monotonic() >= alone_until:
                        alone_until = math.inf
                        lanes += self._joined(rival())
                    continue
                if isinstance(end, Answer):
                    lanes.remove(lane)
                    self._hand_on(lane)
                    return end
                failures.append(end)
                lanes.remove(lane)
                if not lanes:
                    raise failures[0]
        finally:
            for lane in lanes:
                lane.cancel.set()
            with self._lock:
                self._open = False  # who asked has gone on

    def _joined(self, second: Lane | None) -> list[Lane]:
        if second is None:
            return []
        if not self._close():
            second.site.health.left()
            return []
        self._start(second)
        return [second]

    def _start(self, lane: Lane) -> None:
        threading.Thread(target=self._work, args=(lane,), name="agentd-race", daemon=True).start()

    def _work(self, lane: Lane) -> None:
        listener = self._call.listener
        try:
            hear = None if listener is None else self._ears(lane, listener)
            end: Answer | BaseException = lane.chat(self._call, hear, lane.cancel)
        except BaseException as error:
            end = error
        self._ended.put((lane, end))

    def _ears(self, lane: Lane, listener: Listener) -> OnDelta:
        kept = self._kept.setdefault(id(lane), [])

        def hear(delta: Delta) -> None:
            with self._lock:
                if self._open:
                    listener(delta)
                else:
                    kept.append(delta)

        return hear

    def _close(self) -> bool:
        """Let no more deltas pass; False when one has."""
        with self._lock:
            if self._call.reached:
                return False
            self._open = False
            return True

    def _hand_on(self, winner: Lane) -> None:
        if self._call.listener is not None:
            for delta in self._kept.get(id(winner), ()):
                self._call.listener(delta)


def answers(candidate: Candidate, reach: Callable[[Model], None]) -> bool:
    """Whether one of the servers of a remote candidate can be reached."""
    used: list[Site] = []
    while candidate.balance.spare(used):
        try:
            _lane(candidate, used).run(reach)
        except (ModelError, Denied):
            continue
        return True
    return False


def _is_to_blame(error: BaseException, silence: float) -> bool:
    """Whether the server failed, and not the request; one that speaks is not slow because a request could not wait."""
    if isinstance(error, TooSlow):
        return silence >= _FAIR
    return isinstance(error, ServerDown | ServerFailed | BrokenReply)


def _may_pass(error: BaseException, candidate: Candidate) -> bool:
    """Whether the same request may succeed a moment later."""
    if isinstance(error, Busy):
        return candidate.remote
    return isinstance(error, ModelError) and error.retryable


def _pause(state: RetryCallState, candidate: Candidate, used: list[Site], first: float) -> float:
    """Seconds before the next try: none where another site is ready, else longer each time, or as long as asked."""
    if candidate.balance.spare(used):
        return 0.0
    error = state.outcome.exception() if state.outcome is not None else None
    asked = error.retry_after if isinstance(error, ModelError) else None
    usual = wait_exponential_jitter(multiplier=first, max=_LONGEST_PAUSE, jitter=first)(state)
    return max(usual, asked or 0.0, candidate.balance.resting)


def _lane(candidate: Candidate, used: list[Site]) -> Lane:
    """At the site whose turn it is, an unused one if it can be."""
    site = candidate.balance.take(used)
    if site is None:
        raise _resting(candidate)
    used.append(site)
    return Lane(candidate=candidate, site=site)


def _rival(first: Lane, candidates: Sequence[Candidate]) -> Lane | None:
    """At another site of the same model, else of another remote model that may be asked."""
    for other in candidates:
        if other.remote and other.balance.spare((first.site,)):
            site = other.balance.take((first.site,))
            if site is not None and site is not first.site:
                return Lane(candidate=other, site=site)
            if site is not None:  # the other one was taken meanwhile
                site.health.left()
    return None


def _resting(candidate: Candidate) -> ModelError:
    balance = candidate.balance
    problem = next((site.health.problem for site in balance.sites if site.health.problem), "")
    why = f" after: {problem}" if problem else ""
    resting = (
        f"left alone for {math.ceil(balance.resting)} s" if balance.resting else "being tried again by another request"
    )
    message = f"{candidate.name} is {resting}{why}"
    if balance.broken:
        return ModelError(message, hint="it is tried again by itself; `agentd status` shows the servers")
    return Busy(message, hint="it asked for time", retry_after=balance.resting)
