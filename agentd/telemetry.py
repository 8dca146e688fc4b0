"""The log: JSON lines in `state/logs/agentd.log` that carry the task's id and, by default, no text of files."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from typing import Any, TypeAlias

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from agentd.config import LogSettings, Settings
from agentd.home import make_private
from agentd.plain import escaped

_MAX_BYTES = 5_000_000
_OLD_FILES = 3
_LONG = 1000
_OWN = frozenset({"level", "logger", "timestamp"})

Clean: TypeAlias = Callable[[Any], Any]
"""Takes secrets out of a JSON value."""

PRIVATE_KEYS = frozenset(
    {
        "answer",
        "api_key",
        "args",
        "authorization",
        "body",
        "completion",
        "content",
        "data",
        "diff",
        "goal",
        "messages",
        "output",
        "password",
        "patch",
        "prompt",
        "reply",
        "secret",
        "stderr",
        "stdout",
        "text",
    }
)
"""Fields that may hold what stands in the user's files; only the level debug writes them out."""


def configure(settings: Settings, *, foreground: bool = False, clean: Clean = lambda value: value) -> None:
    """Send the log to the home's file, and with `foreground` also, for people, to stderr. Replaces an earlier call.

    Whatever is written goes through `clean`, at every level and whoever logs it.
    """
    close()
    make_private(settings.state_dir)
    handlers: list[logging.Handler] = [_PrivateFile(make_private(settings.log_dir) / "agentd.log")]
    handlers[0].setFormatter(_formatter(clean, _file_renderer(settings.log)))
    if foreground:
        handlers.append(_Stderr())
        console = structlog.dev.ConsoleRenderer(colors=_colours(), pad_event_to=0)
        handlers[1].setFormatter(_formatter(clean, console))
    for handler in handlers:
        logging.getLogger().addHandler(handler)
    set_level(settings.log.level)


def set_level(level: str) -> None:
    """The least important kind of message to keep from now on."""
    logging.getLogger("agentd").setLevel(level.upper())


def close() -> None:
    """Undo `configure`: let go of the file."""
    root = logging.getLogger()
    for handler in list(root.handlers):
        if isinstance(handler, _PrivateFile | _Stderr):
            root.removeHandler(handler)
            handler.close()


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """A logger for `name`, which starts with `agentd`: `log.info("what happened", key=value)`."""
    logger: structlog.stdlib.BoundLogger = structlog.wrap_logger(
        logging.getLogger(name),
        processors=[structlog.stdlib.filter_by_level, *_COMMON, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    return logger


@contextmanager
def task_context(task: str) -> Iterator[None]:
    """Whatever this thread logs inside carries the task's id."""
    with structlog.contextvars.bound_contextvars(task=task):
        yield


def hide_private(logger: WrappedLogger, _: str, event: EventDict) -> EventDict:
    """Put only the size where a field could hold the text of a file, unless the level is debug."""
    if logging.getLogger("agentd").isEnabledFor(logging.DEBUG):
        return event
    for key, value in event.items():
        if key in PRIVATE_KEYS or (isinstance(value, str) and len(value) > _LONG and key not in ("event", "exception")):
            event[key] = f"<{len(str(value))} characters>"
    return event


def leave_out(clean: Clean) -> Processor:
    """What takes secrets out of every field, of a traceback too."""

    def left_out(logger: WrappedLogger, _: str, event: EventDict) -> EventDict:
        own = {key: value for key, value in event.items() if key in _OWN}
        cleaned: EventDict = clean({key: _plain(value) for key, value in event.items() if key not in _OWN})
        return {**cleaned, **own}

    return left_out


def _plain(value: Any) -> Any:
    """As JSON: of what is no value of it, the words that would be written."""
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else str(value)


def hold_still(logger: WrappedLogger, _: str, event: EventDict) -> EventDict:
    """What a stranger wrote steers no terminal on which the log is read, and begins no line of its own."""
    for key, value in event.items():
        if isinstance(value, str):
            event[key] = escaped(value if key in ("exception", "stack") else value.replace("\n", "\\n"))
    return event


_COMMON: list[Processor] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.stdlib.PositionalArgumentsFormatter(),
    structlog.processors.StackInfoRenderer(),
    hide_private,
]


class _PrivateFile(RotatingFileHandler):
    """A rotating log file that its owner alone can read."""

    def handleError(self, record: logging.LogRecord) -> None:
        _say_lost(record)

    def __init__(self, path: os.PathLike[str]) -> None:
        super().__init__(path, maxBytes=_MAX_BYTES, backupCount=_OLD_FILES, encoding="utf-8", delay=True)

    def _open(self) -> TextIOWrapper:
        def private(path: str, flags: int) -> int:
            return os.open(path, flags, 0o600)

        return TextIOWrapper(open(self.baseFilename, "ab", opener=private), encoding="utf-8", errors="backslashreplace")


class _Stderr(logging.StreamHandler[Any]):
    """The terminal of a daemon in the foreground."""

    def handleError(self, record: logging.LogRecord) -> None:
        _say_lost(record)


def _say_lost(record: logging.LogRecord) -> None:
    """In place of what `logging` would say, which is the whole line, with what was to be left out."""
    with suppress(OSError, ValueError):
        sys.stderr.write(f"a line of the log of {record.name} could not be written: {sys.exc_info()[1]!r:.200}\n")


def _formatter(clean: Clean, renderer: Processor) -> logging.Formatter:
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=_COMMON,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            leave_out(clean),
            hold_still,
            renderer,
        ],
    )


def _file_renderer(log: LogSettings) -> Processor:
    if log.format == "json":
        return structlog.processors.JSONRenderer(ensure_ascii=False, default=str)
    return structlog.dev.ConsoleRenderer(colors=False, pad_event_to=0)


def _colours() -> bool:
    return sys.stderr.isatty() and "NO_COLOR" not in os.environ
