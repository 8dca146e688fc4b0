"""Continuous batching: each step gives every running reply its next token and reads on in the prompts that wait."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from agentd.backends.decoding import Floats
from agentd.backends.llama.context import Context, Part
from agentd.backends.llama.desk import Desk
from agentd.backends.llama.options import Frame
from agentd.backends.llama.places import Place, Places
from agentd.backends.llama.refusals import Aborted, NoRoom, Refused
from agentd.backends.llama.replies import Reply
from agentd.errors import NoGrammar

_RIDE = 8
"""More tokens than these are read like a prompt."""

Errand: TypeAlias = Generator[None, None, Frame]
"""Work that is no reply: goes on by one forward pass at a time, and returns its result."""


@dataclass(slots=True, eq=False)
class Generation:
    """A reply that waits for a place, or grows in one. `tokens`: the prompt, then what was written.

    `number`: that of the request; an earlier one has a smaller number.
    """

    number: int
    tokens: list[int]
    reply: Reply
    night: bool
    prompt: int = field(init=False)
    place: Place | None = None
    standing: Callable[[], int] = field(default=lambda: 0)
    read_until: int = 0
    reused: int | None = None
    waited: bool = False
    """Whether somebody else read its prefix in the meantime."""

    def __post_init__(self) -> None:
        self.prompt = self.read_until = len(self.tokens)

    @property
    def reading(self) -> bool:
        return self.standing() < self.read_until

    @property
    def rank(self) -> tuple[bool, int]:
        """Smaller ones come first."""
        return self.night, self.number


@dataclass(slots=True)
class Spent:
    prompt_tokens: int = 0
    prompt_seconds: float = 0.0
    completion_tokens: int = 0
    completion_seconds: float = 0.0
    read_tokens: int = 0
    """Tokens of prompts that were computed."""
    decoded_tokens: int = 0


class Schedule:
    """Everything that runs on one context. `decoded` hears tokens and seconds of passes that only decode."""

    def __init__(self, context: Context, places: Places, desk: Desk, decoded: Callable[[int, float], None]) -> None:
        self.spent = Spent()
        self.waiting: list[Generation] = []
        self.seated: list[Generation] = []
        self.errands: list[tuple[int, Errand]] = []
        self._context = context
        self._places = places
        self._desk = desk
        self._decoded = decoded
        self._full = False
        """The memory ran out; nobody gets a place before one is given back."""

    @property
    def idle(self) -> bool:
        return not (self.waiting or self.seated or self.errands)

    def step(self) -> None:
        self._drop_cancelled()
        self._seat()
        for batch in self._batches():
            self._compute(batch)
        if self.errands:
            self._run(*self.errands[0])

    # places -----------------------------------------------------------------------------------------------------------

    def _seat(self) -> None:
        for each in sorted(self.waiting, key=lambda each: each.rank):
            if self._full:
                return
            if self._places.in_use == self._places.count and not self._displace_for(each):
                return
            place = self._places.take(each)
            if place is None:
                self._places.counts.prefix_waits += not each.waited
                each.waited = True
                continue
            self.waiting.remove(each)
            self._sit(each, place)

    def _sit(self, each: Generation, place: Place) -> None:
        standing = self._context.tokens
        each.place = place
        each.standing = lambda: len(standing[place.number])
        each.read_until = len(each.tokens)
        if each.reused is None:
            each.reused = each.standing()
            self.spent.prompt_tokens += each.prompt
        self.seated.append(each)

    def _displace_for(self, newcomer: Generation) -> bool:
        """Somebody who waits for a reply takes the place of one for whom nobody waits."""
        asleep = [each for each in self.seated if each.night]
        if newcomer.night or not asleep:
            return False
        self._suspend(max(asleep, key=lambda each: each.rank))
        return True

    def _suspend(self, each: Generation) -> None:
        """Back into the line; it goes on later where it stopped."""
        self._stand_up(each)
        self.waiting.append(each)

    def _stand_up(self, each: Generation) -> None:
        if each.place is not None:
            self.seated.remove(each)
            self._places.give_back(each.place)
            each.place = None
            each.standing = lambda: 0
            self._full = False

    def _make_room(self) -> None:
        """The memory is full: forget what nobody uses, or let the last who came wait."""
        if self._places.free_one():
            return
        last = max(self.seated, key=lambda each: each.rank)
        if len(self.seated) == 1:
            self._fail(last, "refused", f"{len(last.tokens)} tokens do not fit into the memory that is left")
            return
        self._suspend(last)
        self._places.free_one()
        self._full = True

    # forward passes ---------------------------------------------------------------------------------------------------

    def _batches(self) -> list[list[tuple[Generation, Part]]]:
        """What is computed in this step: running replies in one pass, then each prompt in its own.

        Where each sequence has its own memory, llama.cpp would cut a mixed batch up anyway, and in a way that makes
        numbers depend on who else is there. Where all share one memory, everything goes through at once.
        """
        riders = [(each, self._next_part(each)) for each in self.seated if not each.reading]
        used = sum(len(part.tokens) for _, part in riders) if self._context.memory.unified else 0
        prompts = self._prompts(self._context.batch_size - used)
        if self._context.memory.unified:
            return [riders + prompts] if riders or prompts else []
        return [*([riders] if riders else []), *([each] for each in prompts)]

    def _next_part(self, each: Generation) -> Part:
        assert each.place is not None
        pending = each.tokens[each.standing() :]
        return Part(each.place.number, pending, len(pending) - 1)

    def _prompts(self, room: int) -> list[tuple[Generation, Part]]:
        """One prompt after the other, as many tokens as fit: the first ones are done soonest."""
        found = []
        for each in sorted((each for each in self.seated if each.reading), key=lambda each: each.rank):
            assert each.place is not None
            start = each.standing()
            length = self._length(each, start, room)
            if length < 1:
                break
            whole = start + length == len(each.tokens)
            part = Part(each.place.number, each.tokens[start : start + length], length - whole)
            found.append((each, part))
            room -= length
        return found

    def _length(self, each: Generation, start: int, room: int) -> int:
        """How many tokens are read at once; never one alone, which other code computes with slightly other numbers."""
        pending = len(each.tokens) - start
        if not self._context.memory.can_cut and pending > 2:
            return min(pending - 2, room)  # the state before the last two is kept: it cannot be gone back to
        length = min(pending, room)
        if pending - length == 1:
            length -= 1
        return length if length > 1 or length == pending else 0

    def _compute(self, batch: Sequence[tuple[Generation, Part]]) -> None:
        batch = [(each, part) for each, part in batch if each.place is not None]
        reads = any(each.reading for each, _ in batch)
        started = time.monotonic()
        try:
            with self._desk.serving([each.number for each, _ in batch]):
                rows = self._context.compute([part for _, part in batch])
        except Aborted:
            return
        except NoRoom:
            self._make_room()
            return
        except Refused as refusal:
            for each, _ in batch:
                self._fail(each, "failed", str(refusal))
            return
        self._account(batch, time.monotonic() - started, reads)
        for (each, _), row in zip(batch, rows, strict=True):
            if row.size:
                self._go_on(each, row[-1])
            elif not self._context.memory.can_cut and each.place is not None:
                self._keep_turning_point(each, each.place)

    def _account(self, batch: Sequence[tuple[Generation, Part]], seconds: float, reads: bool) -> None:
        tokens = sum(len(part.tokens) for _, part in batch)
        if reads:
            self.spent.prompt_seconds += seconds
            self.spent.read_tokens += tokens
        else:
            self.spent.completion_seconds += seconds
            self.spent.decoded_tokens += tokens
            self._decoded(tokens, seconds)

    def _keep_turning_point(self, each: Generation, place: Place) -> None:
        """The state shortly before the end of a prompt, from which the next turn or another try can go on."""
        if len(each.tokens) - each.standing() == 2:
            self._places.states.keep(each.tokens[:-2], self._context.save(place.number))

    def _go_on(self, each: Generation, logits: Floats) -> None:
        before = each.reply.written
        try:
            found = each.reply.go_on(logits)
            if found and len(each.tokens) + len(found) > self._context.size:
                raise Refused(f"the reply does not fit into a context of {self._context.size} tokens")
        except NoGrammar as error:
            self._fail(each, "no_grammar", error.message, error.hint)
            return
        except (Refused, ValueError, TypeError, IndexError, OverflowError) as error:
            self._fail(each, "refused", str(error))
            return
        finally:
            self.spent.completion_tokens += each.reply.written - before
        if not found:
            self._finish(each)
            return
        each.tokens += found
        if len(found) > _RIDE:
            each.read_until = len(each.tokens)

    # ends -------------------------------------------------------------------------------------------------------------

    def _finish(self, each: Generation) -> None:
        self._stand_up(each)
        result = each.reply.result() | {"prompt_tokens": each.prompt, "reused_tokens": each.reused or 0}
        each.reply.close()
        self._desk.answer(each.number, {"ok": result})

    def _fail(self, each: Generation, kind: str, message: str, hint: str = "") -> None:
        self._stand_up(each)
        if each in self.waiting:
            self.waiting.remove(each)
        each.reply.close()
        self._desk.answer(each.number, {"error": {"kind": kind, "message": message, "hint": hint}})

    def _drop_cancelled(self) -> None:
        for each in [*self.waiting, *self.seated]:
            if self._desk.cancelled(each.number):
                self._fail(each, "cancelled", "cancelled")
        for errand in list(self.errands):
            if self._desk.cancelled(errand[0]):
                self._end_errand(*errand, {"error": {"kind": "cancelled", "message": "cancelled", "hint": ""}})

    def _run(self, number: int, errand: Errand) -> None:
        try:
            with self._desk.serving([number]):
                next(errand)
        except StopIteration as done:
            self._end_errand(number, errand, {"ok": done.value})
        except Aborted:
            pass  # it is dropped before the next step
        except (Refused, ValueError, TypeError, IndexError, KeyError) as error:
            self._end_errand(number, errand, {"error": {"kind": "refused", "message": str(error), "hint": ""}})

    def _end_errand(self, number: int, errand: Errand, found: Frame) -> None:
        self.errands.remove((number, errand))
        errand.close()
        self._desk.answer(number, found)

    def compute_beside(self, context: Context, part: Part) -> Floats:
        """A pass for an errand, in a context that may share its memory with the replies."""
        while True:
            try:
                return context.compute([part])[0]
            except NoRoom:
                if not self._places.free_one():
                    raise Refused(f"{len(part.tokens)} tokens do not fit into the memory that is left") from None
