"""From files to a model in memory: requantised once where that is faster, with adapters, and with an honest error."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import llama_cpp as lib

from agentd.backends import gguf_file
from agentd.backends.llama.options import Load
from agentd.errors import ModelError, OutOfMemory

_WARNINGS = (3, 4)
_MEMORY_WORDS = ("alloc", "out of memory", "outofdevicememory", "cannot allocate", "insufficient memory")
_KEPT_WORDS = 5

_last_words: list[str] = []


@lib.llama_log_callback  # type: ignore[untyped-decorator]
def _log(level: int, text: bytes, _: Any) -> None:
    """Warnings and errors of llama.cpp go to stderr, which the parent reads; the rest is dropped."""
    line = text.decode("utf-8", "replace").strip()
    if level in _WARNINGS and line:
        _last_words[:] = [*_last_words[1 - _KEPT_WORDS :], line]
        say(line)


def say(line: str) -> None:
    """To stderr, which the parent reads."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def start_library() -> None:
    lib.llama_log_set(_log, ctypes.c_void_p(0))
    lib.llama_backend_init()


def load_model(spec: Load) -> tuple[Any, Path]:
    """llama.cpp's model and the file it was made of. Raises `ModelError`; `OutOfMemory` when a smaller plan may fit."""
    path = _requantised(spec) if spec.requantise else spec.path
    params = lib.llama_model_default_params()
    params.n_gpu_layers = spec.gpu_layers
    _last_words.clear()
    model = lib.llama_model_load_from_file(str(path).encode(), params)
    if not model:
        words = "; ".join(_last_words)
        if any(each in words.lower() for each in _MEMORY_WORDS):
            raise OutOfMemory(f"there is not enough memory for {spec.path}: {_last_word()}", hint=_SMALLER)
        raise ModelError(
            f"llama.cpp cannot load {spec.path}: {_last_word()}",
            hint="download it again, or install a newer llama-cpp-python",
        )
    trained = lib.llama_model_n_ctx_train(model)
    if 0 < trained < spec.context:
        raise ModelError(
            f"{spec.path} was trained for a context of {trained} tokens; {spec.context} are configured",
            hint="lower `context` in models/catalog.toml",
        )
    return model, path


_SMALLER = "lower `context`, `sequences` or `gpu_layers` of this model in models/catalog.toml"


def _last_word() -> str:
    return _last_words[-1] if _last_words else "llama.cpp gives no reason"


def load_adapters(model: Any, paths: Sequence[Path]) -> list[Any]:
    """LoRA adapters. Raises `ModelError`."""
    found = []
    for path in paths:
        gguf_file.read(path)
        adapter = lib.llama_adapter_lora_init(model, str(path).encode())
        if not adapter:
            raise ModelError(f"LoRA adapter {path} cannot be loaded", hint="it must be a GGUF made for this model")
        found.append(adapter)
    return found


def make_context(model: Any, params: Any, adapters: Sequence[Any] = ()) -> Any:
    """llama.cpp's context with its adapters. Raises `OutOfMemory` and `ModelError`."""
    _last_words.clear()
    context = lib.llama_init_from_model(model, params)
    if not context:
        raise OutOfMemory(f"there is not enough memory for {params.n_ctx} tokens: {_last_word()}", hint=_SMALLER)
    if adapters:
        count = len(adapters)
        pointers, scales = (
            (lib.llama_adapter_lora_p_ctypes * count)(*adapters),
            (ctypes.c_float * count)(*[1.0] * count),
        )
        if lib.llama_set_adapters_lora(context, pointers, count, scales) != 0:
            lib.llama_free(context)
            raise ModelError("the LoRA adapter does not fit this model", hint="train or convert it for this model")
    return context


def _requantised(spec: Load) -> Path:
    """The file in the wanted format, made now when there is none; the file as it came when that cannot be done."""
    source = spec.path
    try:
        target = spec.cache / f"{source.stem}.{spec.requantise}.{source.stat().st_size}.gguf"
        if not _is_whole(target):
            _requantise(source, target, spec)
        return target
    except OSError as error:
        say(f"{source.name} is used as it came: it cannot be requantised to {spec.requantise}: {error}")
        return source


def _is_whole(path: Path) -> bool:
    try:
        gguf_file.read(path)
    except ModelError:
        return False
    return True


def _requantise(source: Path, target: Path, spec: Load) -> None:
    """Through a temporary file, so that a crash leaves no half model. Raises `OSError`."""
    kind = getattr(lib, f"LLAMA_FTYPE_MOSTLY_{spec.requantise}", None)
    if kind is None:
        raise OSError("llama.cpp knows no such format")
    target.parent.mkdir(parents=True, exist_ok=True)
    made = target.with_suffix(f".{os.getpid()}.part")
    params = lib.llama_model_quantize_default_params()
    params.ftype = kind
    params.allow_requantize = True
    params.nthread = spec.threads_batch
    try:
        if lib.llama_model_quantize(str(source).encode(), str(made).encode(), params) != 0 or not _is_whole(made):
            raise OSError(_last_word())
        made.replace(target)
    finally:
        made.unlink(missing_ok=True)
