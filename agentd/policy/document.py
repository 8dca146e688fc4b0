"""A YAML file read as nodes that know their line; duplicate and unknown keys are errors."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import NoReturn

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError

from agentd.errors import PolicyError

_STRING = "tag:yaml.org,2002:str"
_INTEGER = "tag:yaml.org,2002:int"
_BOOLEANS = {"true": True, "false": False}
MAX_BYTES = 1_000_000


class Document:
    """One YAML 1.2 file; everything that is wrong with it is a `PolicyError` that names file and line."""

    def __init__(self, path: Path, text: str | None = None) -> None:
        """`text`: what stands in it, where it was read already."""
        self.path = path
        self.root = self._compose(_read(path) if text is None else text)

    def refuse_anchors(self) -> None:
        """What stands in one place and holds in another is easily read wrong, and can grow without end."""
        nodes = [self.root]
        while nodes:
            node = nodes.pop()
            if node.anchor:
                self.fail(node, f"the anchor &{node.anchor} is not taken here", "write it out in each place")
            for child in node.value if not isinstance(node, ScalarNode) else ():
                nodes += child if isinstance(child, tuple) else (child,)

    def where(self, node: Node) -> str:
        """`default.yaml:12`"""
        return f"{self.path.name}:{node.start_mark.line + 1}"

    def fail(self, node: Node, message: str, hint: str = "") -> NoReturn:
        raise PolicyError(f"{self.path}:{node.start_mark.line + 1}: {message}", hint=hint)

    def items(self, node: Node, what: str) -> list[Node]:
        """The entries of a list."""
        if not isinstance(node, SequenceNode):
            self.fail(node, f"{what} must be a list")
        return list(node.value)

    def entries(self, node: Node, what: str, required: Collection[str], optional: Collection[str]) -> dict[str, Node]:
        """The values of a mapping by key; all of `required` and nothing but `required` and `optional`."""
        if not isinstance(node, MappingNode):
            self.fail(node, f"{what} must be a mapping with {_listed(required or optional)}")
        found: dict[str, Node] = {}
        for key_node, value in node.value:
            key = self.text(key_node, f"a key of {what}")
            if key not in required and key not in optional:
                self.fail(key_node, f"{what} has the unknown key {key!r}", nearest(key, [*required, *optional]))
            if key in found:
                self.fail(key_node, f"{what} has the key {key!r} twice")
            found[key] = value
        missing = [key for key in required if key not in found]
        if missing:
            self.fail(node, f"{what} lacks {_listed(missing)}")
        return found

    def text(self, node: Node, what: str) -> str:
        """A text that is not empty."""
        if not isinstance(node, ScalarNode) or str(node.tag) != _STRING:
            self.fail(node, f"{what} must be a text", "put it in quotes if it is one")
        text: str = node.value
        if not text.strip():
            self.fail(node, f"{what} must not be empty")
        return text

    def texts(self, node: Node, what: str) -> list[str]:
        """A text or a list of texts."""
        if isinstance(node, SequenceNode):
            return [self.text(item, f"an entry of {what}") for item in node.value]
        return [self.text(node, what)]

    def number(self, node: Node, what: str, lowest: int, highest: int) -> int:
        """A whole number from `lowest` to `highest`."""
        if isinstance(node, ScalarNode) and str(node.tag) == _INTEGER:
            digits = str(node.value).removeprefix("+")
            if digits.isdecimal() and lowest <= int(digits) <= highest:
                return int(digits)
        self.fail(node, f"{what} must be a whole number from {lowest} to {highest}, not {_shown(node)}")

    def truth(self, node: Node, what: str) -> bool:
        """`true` or `false`."""
        if isinstance(node, ScalarNode) and node.style is None and node.value in _BOOLEANS:
            return _BOOLEANS[node.value]
        self.fail(node, f"{what} must be true or false, not {_shown(node)}")

    def choice(self, node: Node, what: str, choices: Collection[str]) -> str:
        """One of `choices`."""
        text = self.text(node, what)
        if text not in choices:
            self.fail(node, f"{what} must be one of {_listed(choices)}, not {text!r}", nearest(text, choices))
        return text

    def _compose(self, data: str) -> Node:
        try:
            node: Node | None = YAML(typ="safe", pure=True).compose(data)
        except MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line = mark.line + 1 if mark else 1
            raise PolicyError(f"{self.path}:{line}: not YAML: {error.problem or error.context}") from None
        except ReaderError as error:
            line = data.count("\n", 0, error.position) + 1
            raise PolicyError(f"{self.path}:{line}: not YAML: a character that no text holds") from None
        except RecursionError:
            raise PolicyError(f"{self.path}:1: lists and mappings stand too deep in each other") from None
        except (YAMLError, ValueError) as error:
            raise PolicyError(f"{self.path}:1: not YAML: {error}") from None
        if node is None:
            raise PolicyError(f"{self.path}:1: the file is empty", hint="`agentd init` writes the default policies")
        return node


def _read(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise PolicyError(f"{path}:1: the file has more than {MAX_BYTES} bytes")
        return data.decode("utf-8-sig")
    except FileNotFoundError:
        raise PolicyError(f"{path} does not exist", hint="`agentd init` writes the default policies") from None
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise PolicyError(f"{path}:{line}: cannot be read: {error}") from None
    except OSError as error:
        raise PolicyError(f"{path} cannot be read: {error}") from None


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint: the known word that comes closest, or all of them."""
    words = list(known)
    close = difflib.get_close_matches(word, words, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"there are {_listed(words)}"


def _listed(words: Collection[str]) -> str:
    return ", ".join(words)


def _shown(node: Node) -> str:
    return repr(node.value) if isinstance(node, ScalarNode) else "a list or mapping"
