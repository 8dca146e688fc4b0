"""Text to tokens and back."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import llama_cpp as lib

from agentd.backends.chat_template import Piece
from agentd.backends.llama.refusals import Refused

_TEXT_ROOM = 64


class Vocabulary:
    """A model's tokens. Safe to use from several threads."""

    def __init__(self, model: Any) -> None:
        self.pointer = lib.llama_model_get_vocab(model)
        self.size: int = lib.llama_vocab_n_tokens(self.pointer)
        self.bos: int = lib.llama_vocab_bos(self.pointer)
        self.eos: int = lib.llama_vocab_eos(self.pointer)
        self.adds_bos: bool = bool(lib.llama_vocab_get_add_bos(self.pointer))
        self.ends = [token for token in range(self.size) if lib.llama_vocab_is_eog(self.pointer, token)]
        self.controls = [token for token in range(self.size) if lib.llama_vocab_is_control(self.pointer, token)]
        self._pieces: dict[int, bytes] = {}

    def tokens(self, text: str, *, controls: bool) -> list[int]:
        """Without BOS; control tokens are recognised in the text only when asked."""
        raw = text.encode("utf-8", "replace")
        room = (lib.llama_token * (len(raw) + 16))()
        count = lib.llama_tokenize(self.pointer, raw, len(raw), room, len(room), False, controls)
        if count < 0:
            raise Refused(f"the model's tokenizer cannot read a text of {len(text)} characters")
        return list(room[:count])

    def piece(self, token: int, *, special: bool = False) -> bytes:
        """The bytes of a token; nothing for a control token unless `special`."""
        if special:
            return self._piece(token, special=True)
        if token not in self._pieces:
            self._pieces[token] = self._piece(token, special=False)
        return self._pieces[token]

    def _piece(self, token: int, *, special: bool) -> bytes:
        room = ctypes.create_string_buffer(_TEXT_ROOM)
        count = lib.llama_token_to_piece(self.pointer, token, room, len(room), 0, special)
        if count < 0:
            room = ctypes.create_string_buffer(-count)
            count = lib.llama_token_to_piece(self.pointer, token, room, len(room), 0, special)
        return room.raw[:count]

    def name(self, token: int) -> str:
        return self.piece(token, special=True).decode("utf-8", "replace") if token >= 0 else ""

    def text(self, tokens: Sequence[int], *, special: bool) -> str:
        """Raises `Refused` for a number that is no token."""
        for token in tokens:
            if not 0 <= token < self.size:
                raise Refused(f"there is no token {token}; the model has {self.size}")
        return b"".join(self.piece(token, special=special) for token in tokens).decode("utf-8", "replace")

    def prompt(self, pieces: Sequence[Piece]) -> list[int]:
        return self._begun([token for text, controls in pieces for token in self.tokens(text, controls=controls)])

    def hole(self, before: str, after: str) -> list[int]:
        """A prompt for what stands between two texts. Raises `Refused` for a model that was not trained for it."""
        marks = [
            lib.llama_vocab_fim_pre(self.pointer),
            lib.llama_vocab_fim_suf(self.pointer),
            lib.llama_vocab_fim_mid(self.pointer),
        ]
        if min(marks) < 0:
            raise Refused(
                "this model cannot fill a hole: it has no tokens for the text before, after and between; "
                "leave `suffix` out, or take a model made for code completion"
            )
        first, second, third = marks
        head = [first, *self.tokens(before, controls=False), second, *self.tokens(after, controls=False), third]
        return self._begun(head)

    def _begun(self, tokens: list[int]) -> list[int]:
        """With the token that begins a text, where the model wants one."""
        if (self.adds_bos or not tokens) and self.bos >= 0 and tokens[:1] != [self.bos]:
            return [self.bos, *tokens]
        return tokens
