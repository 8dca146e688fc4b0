"""One reply as it grows: each pass gives logits, each call tells which tokens come next, until it has ended."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np

from agentd.backends import decoding
from agentd.backends.decoding import Floats, Sampler, Sampling, TextStream
from agentd.backends.llama.grammar import Grammar
from agentd.backends.llama.options import Frame, Wish
from agentd.backends.llama.vocabulary import Vocabulary

Tell: TypeAlias = Callable[[Frame], None]
"""Sends a piece of the reply: `delta`, and `logprobs` where they are wanted."""
Logprob: TypeAlias = tuple[str, float, list[int], int, list[tuple[str, float, int]]]
"""Text, log-probability, bytes and number of a token, and the likeliest ones in its place."""


class Reply(Protocol):
    @property
    def written(self) -> int:
        """Tokens so far."""
        ...

    def go_on(self, logits: Floats) -> list[int]:
        """The tokens that follow, to be computed next; none when the reply has ended."""
        ...

    def result(self) -> Frame: ...
    def close(self) -> None: ...


class Text:
    """A reply in the model's own words, held to a grammar if there is one.

    `tokens` is the prompt, and grows by what was written; `room`: tokens that the context has left.
    """

    def __init__(
        self, vocabulary: Vocabulary, wish: Wish, tokens: Sequence[int], room: int, grammar: Grammar | None, tell: Tell
    ) -> None:
        self.written = 0
        self._vocabulary = vocabulary
        self._wish = wish
        self._tokens = tokens
        self._prompt = len(tokens)
        self._most = min(wish.max_tokens, room)
        self._grammar = grammar
        self._tell = tell
        self._sampler = Sampler(wish.sampling)
        self._ends = frozenset(vocabulary.ends)
        self._stream = TextStream(wish.stop)
        self._parts: list[str] = []
        self._logprobs = None if wish.logprobs is None else _Logprobs(vocabulary, wish.logprobs)
        self._reason = ""

    def go_on(self, logits: Floats) -> list[int]:
        if self._most < 1:
            return self._end("length")
        token = self._pick(logits)
        self.written += 1
        if token in self._ends and not self._wish.ignore_eos:
            return self._end("stop")
        found = [token, *self._forced(token)]
        for place, each in enumerate(found):
            self.written += place > 0
            self._say(self._stream.add(self._vocabulary.piece(each)))
            if self._stream.stopped:
                return self._end("stop")
            if self.written >= self._most:
                return self._end("length")
        if self._grammar is not None and self._grammar.finished:
            return self._end("stop")
        return found

    def _pick(self, logits: Floats) -> int:
        if self._wish.ignore_eos:
            logits = logits.copy()
            logits[self._vocabulary.ends] = -np.inf
        token = self._sampler.pick(logits, self._tokens, self._prompt)
        # Going through the whole vocabulary costs as much as a small model's forward pass: only when it must be.
        if self._grammar is not None and not self._grammar.allows(token):
            token = self._sampler.pick(self._grammar.restrict(logits), self._tokens, self._prompt)
        if self._logprobs is not None and (token not in self._ends or self._wish.ignore_eos):
            self._logprobs.add(logits, token)
        return token

    def _forced(self, token: int) -> list[int]:
        """Tokens that can be followed by nothing else than the grammar says need not be asked for."""
        if self._grammar is None:
            return []
        self._grammar.accept(token)
        if self._logprobs is not None or self._grammar.finished:
            return []
        found = self._grammar.forced()
        for each in found:
            self._grammar.accept(each)
        return found

    def _say(self, text: str, *, rest: bool = False) -> None:
        certain = self._logprobs.take(len(text), rest=rest) if self._logprobs is not None else []
        if text:
            self._parts.append(text)
        if self._wish.stream and (text or certain):
            self._tell({"delta": text, "logprobs": certain} if certain else {"delta": text})

    def _end(self, reason: str) -> list[int]:
        self._say(self._stream.add(b"", last=True), rest=not self._stream.stopped)
        self._reason = reason
        return []

    def result(self) -> Frame:
        found: Frame = {"text": "".join(self._parts), "completion_tokens": self.written, "finish_reason": self._reason}
        return found if self._logprobs is None else found | {"logprobs": self._logprobs.told}

    def close(self) -> None:
        if self._grammar is not None:
            self._grammar.close()


class _Logprobs:
    """Log-probabilities of tokens, given out together with the text that they begin in."""

    def __init__(self, vocabulary: Vocabulary, alternatives: int) -> None:
        self.told: list[Logprob] = []
        self._vocabulary = vocabulary
        self._alternatives = alternatives
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._read = 0
        """Characters of all tokens, also of those held back."""
        self._said = 0
        self._held: list[tuple[int, Logprob]] = []

    def add(self, logits: Floats, token: int) -> None:
        piece = self._vocabulary.piece(token)
        own = float(decoding.logprobs(logits.reshape(1, -1), [token])[0])
        top = Sampler.alternatives(logits, self._alternatives)
        others = [(_readable(self._vocabulary.piece(each)), logprob, each) for each, logprob in top]
        entry = (_readable(piece), own, list(piece), token, others)
        self._held.append((self._read, entry))
        self._read += len(self._decoder.decode(piece))

    def take(self, characters: int, *, rest: bool) -> list[Logprob]:
        """Those whose text begins before the end of what is said now, `characters` more than before; or all."""
        self._said += characters
        found = []
        while self._held and (rest or self._held[0][0] < self._said):
            found.append(self._held.pop(0)[1])
        self.told += found
        return found


def _readable(piece: bytes) -> str:
    return piece.decode("utf-8", "replace")


@dataclass(slots=True)
class _Taken:
    number: int
    asked: int


class Choice:
    """A reply that is one of several given texts."""

    def __init__(self, vocabulary: Vocabulary, wish: Wish, tell: Tell) -> None:
        assert wish.choices is not None
        self._choices = wish.choices
        self._stream = wish.stream
        self._tell = tell
        self._walk = decoding.choose(
            [vocabulary.tokens(choice, controls=False) for choice in wish.choices],
            vocabulary.ends,
            # Penalties and biases are for tokens, not for choices.
            Sampler(Sampling(temperature=wish.sampling.temperature, seed=wish.sampling.seed)),
        )
        self._taken: _Taken | None = None
        self._begun = False

    @property
    def written(self) -> int:
        return 0 if self._taken is None else self._taken.asked

    def go_on(self, logits: Floats) -> list[int]:
        try:
            if not self._begun:
                self._begun = True
                tokens = next(self._walk)
                if tokens:
                    return tokens
            while not (tokens := self._walk.send(logits)):
                pass
            return tokens
        except StopIteration as done:
            self._taken = _Taken(*done.value)
            if self._stream:
                self._tell({"delta": self._choices[self._taken.number]})
            return []

    def result(self) -> Frame:
        assert self._taken is not None
        text = self._choices[self._taken.number]
        return {"text": text, "completion_tokens": self._taken.asked, "finish_reason": "stop"}

    def close(self) -> None:
        self._walk.close()
