"""What the forge lets nobody pass: tools that are wrong, tools that cheat, and tests that prove nothing."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from itertools import count
from typing import Any

import pytest

from agentd.api.direct import DirectJournal
from agentd.errors import CapabilityMissing, Denied
from agentd.home import defaults_dir
from agentd.plugins.controls import mutants
from agentd.plugins.forge import Commission, Forge
from agentd.plugins.replies import code_in
from agentd.plugins.spec import Spec
from agentd.policy.engine import PolicyEngine
from agentd.sandbox.job import Limits
from agentd.sandbox.os_executor import OsExecutor
from agentd.types import AccessLevel, Model, ModelProfile, ModelReply, ModelRequest, Origin
from tests.plugins.conftest import ADD, ADD_TESTS, House, adding

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the sandbox of Linux")
TESTS = ADD_TESTS.replace("NAME", "add")


class Author:
    """Says its texts in turn, by what is asked for."""

    name = "author"

    def __init__(self, said: dict[str, list[str]], compact: bool = False) -> None:
        self.said = {key: iter(texts) for key, texts in said.items()}
        self.asked: list[str] = []
        self.profile = ModelProfile(compact=compact)

    def chat(self, request: ModelRequest, *_: object) -> ModelReply:
        asked = request.messages[0].content
        self.asked.append(asked)
        key = next(key for key, begin in _BEGINS.items() if begin in asked)
        return ModelReply(text=next(self.said[key]), model="author", prompt_tokens=1, completion_tokens=1, seconds=0.0)


_BEGINS = {
    "spec": "Specify one small",
    "tests": "Write the tests",
    "code": "Write this Python",
    "review": "A tool is to be given",
}


class Smithy:
    """A forge over a real registry and the real sandbox."""

    def __init__(self, house: House, executor: OsExecutor, policy: PolicyEngine) -> None:
        self.house = house
        self.events: list[dict[str, Any]] = []
        self.forge = Forge(
            house.registry,
            executor=lambda: executor,
            policy=policy,
            record=house.audit.record,
            emit=lambda kind, task, data: self.events.append(dict(data)),
            limits=lambda: Limits(seconds=1.0, memory_mb=64),
        )

    def make(
        self,
        *,
        code: Sequence[str] = (ADD,),
        tests: Sequence[str] = (TESTS,),
        spec: Spec | None = None,
        accept: bool = True,
        level: AccessLevel = AccessLevel.SAFE_WRITE,
        compact: bool = False,
    ) -> Any:
        says = {
            "spec": [json.dumps((spec or adding()).model_dump(mode="json"))] * 2,
            "tests": [each if "```" in each or not each else f"```python\n{each}```" for each in tests],
            "code": [each if "```" in each or not each else f"```python\n{each}```" for each in code],
            "review": [json.dumps({"accept": accept, "reason": "because"})] * 5,
        }
        self.author = Author(says, compact)
        numbers = count(1)
        model: Any = self.author
        return self.forge.make(
            Commission(
                task="t1",
                goal="Add 1 and 2",
                missing="It would have to add two numbers.",
                files={},
                level=level,
                origin=Origin.CLI,
                journal=DirectJournal(),
                key=lambda: f"{next(numbers):05d}",
                model=lambda role: self._model(model),
            )
        )

    def _model(self, model: Model) -> Model:
        return model

    def why(self) -> list[str]:
        return [each["what"] for each in self.events if not each["ok"]]


@pytest.fixture(scope="module")
def executor() -> Iterator[OsExecutor]:
    made = OsExecutor()
    yield made
    made.close()


@pytest.fixture(scope="module")
def policy() -> PolicyEngine:
    return PolicyEngine.load(defaults_dir() / "policies")


@pytest.fixture
def smithy(house: House, executor: OsExecutor, policy: PolicyEngine) -> Smithy:
    return Smithy(house, executor, policy)


def test_a_good_tool_is_made_with_its_evidence(smithy: Smithy) -> None:
    made = smithy.make()
    assert (made.name, made.version, made.reused) == ("add", 1, False)
    evidence = smithy.house.registry.get("add").evidence
    assert (evidence.cases, evidence.attempts, evidence.author) == (5, 1, "agent")
    assert evidence.controls == evidence.controls_killed > 5
    assert evidence.mutants_killed >= 0.8 * evidence.mutants > 0
    assert evidence.fuzzed > 5
    assert not any("test_two_numbers" in asked for asked in smithy.author.asked if "Write this Python" in asked)


def test_a_like_tool_stands_in_the_way_unless_it_fails(smithy: Smithy) -> None:
    smithy.make()
    again = smithy.make(spec=adding("add_numbers"))
    assert (again.name, again.reused) == ("add", True)
    other = adding(
        "add_up",
        examples=({"args": {"a": 1, "b": 2}, "result": 4},),
        purpose="Add two numbers.",
        requests=("Add {a} and {b}",),
    )
    code = "def add_up(a, b=1):\n    return a + b + 1\n"
    tests = TESTS.replace("plugin.add", "plugin.add_up").replace(") == ", ") - 1 == ")
    assert smithy.make(spec=other, code=[code], tests=[tests]).name == "add_up"


BAD_CODE = {
    "a constant": "def add(a, b=1):\n    return 3\n",
    "the example alone": "def add(a, b=1):\n    return {(1, 2): 3}.get((a, b), 0)\n",
    "what the tests might ask": "def add(a, b=1):\n    return {(1, 2): 3, (20, 22): 42, (1, 1): 2}.get((a, b), 0)\n",
    "nothing": "def add(a, b=1):\n    pass\n",
    "a forged result and an exit": "import os\ndef add(a, b=1):\n    print('PASSED 5')\n    os._exit(0)\n",
    "an exit that is none": "def add(a, b=1):\n    print('5 passed')\n    raise SystemExit(0)\n",
    "the host's files": "def add(a, b=1):\n    open('/etc/passwd').read()\n    return a + b\n",
    "the environment": "import os\ndef add(a, b=1):\n    return a + b + len(os.environ)\n",
    "a beacon": "import urllib.request\ndef add(a, b=1):\n    return a + b\n",
    "another's tests": "import plugin\ndef add(a, b=1):\n    return plugin.add(a=a, b=b)\n",
    "rights that were not granted": "import files\ndef add(a, b=1):\n    files.write_text('x', '')\n    return a\n",
    "no end": "def add(a, b=1):\n    while a != b:\n        a = a\n    return a\n",
    "all memory": "def add(a, b=1):\n    x = 'y' * 10 ** 10\n    return a + b\n",
    "a recursion without end": "def add(a, b=1):\n    return add(a, b)\n",
    "the wrong form": "def add(a, b=1):\n    return str(a + b)\n",
    "another name": "def plus(a, b=1):\n    return a + b\n",
    "an operator of its own": "class N(int):\n    def __eq__(self, other):\n        return True\n"
    "def add(a, b=1):\n    return N(3)\n",
    "what runs while it is loaded": "x = [0]\nfor i in x:\n    x.append(i)\ndef add(a, b=1):\n    return a + b\n",
    "a way into the interpreter": "def add(a, b=1):\n    return a + b + len(().__class__.__base__.__subclasses__())\n",
    "the interpreter's words": "def add(a, b=1):\n    return eval('a + b')\n",
    "half a file": "def add(a, b=1):\n    return a +\n",
    "a megabyte": "def add(a, b=1):\n    return a + b\n" + "#" * 1_000_000,
    "bytes that are none": "def add(a, b=1):\n    return a + b  # \x00\n",
}


@pytest.mark.parametrize("what", BAD_CODE)
def test_no_bad_tool_is_promoted(smithy: Smithy, what: str) -> None:
    with pytest.raises(CapabilityMissing, match="was tried and not proven"):
        smithy.make(code=[BAD_CODE[what]] * 3)
    assert len(smithy.why()) == 3
    assert smithy.house.registry.all() == []
    assert smithy.house.folder.found() == []


NO_PROOF = "import plugin\n" + "".join(f"def test_{letter}():\n    BODY\n" for letter in "abcde")
BAD_TESTS = {
    "none": "import plugin\n",
    "too few": "import plugin\ndef test_a():\n    assert plugin.add(a=1) == 2\n",
    "no asserts": NO_PROOF.replace("BODY", "plugin.add(a=1)"),
    "constants": NO_PROOF.replace("BODY", "plugin.add(a=1)\n    assert 1 == 1"),
    "no calls": NO_PROOF.replace("BODY", "x = 1\n    assert x"),
    "whatever comes": NO_PROOF.replace("BODY", "assert plugin.add(a=1) is not plugin"),
    "errors are fine": NO_PROOF.replace(
        "BODY", "try:\n        assert plugin.add(a=1) == 2\n    except Exception:\n        pass"
    ),
    "the example alone": NO_PROOF.replace("BODY", "assert plugin.add(a=1, b=2) == 3"),
    "a plugin of their own": NO_PROOF.replace("BODY", "plugin.add = lambda **k: 2\n    assert plugin.add(a=1) == 2"),
    "an exit": NO_PROOF.replace("BODY", "r = plugin.add(a=1)\n    assert r\n    raise SystemExit(0)"),
    "the host": "import socket\n" + TESTS,
    "prose": "I would test addition.",
    "nothing at all": "",
}


@pytest.mark.parametrize("what", BAD_TESTS)
def test_tests_that_prove_nothing_are_refused(smithy: Smithy, what: str) -> None:
    text = BAD_TESTS[what]
    said = text if what in ("prose", "nothing at all") else f"```python\n{text}```"
    with pytest.raises(CapabilityMissing, match="was tried and not proven"):
        smithy.make(tests=[said] * 3, code=[ADD] * 3)
    assert smithy.house.registry.all() == []


def test_what_was_wrong_is_told_and_mended(smithy: Smithy) -> None:
    smithy.make(code=[BAD_CODE["a constant"], BAD_CODE["the wrong form"], ADD], tests=[BAD_TESTS["too few"], TESTS])
    first, second, third = smithy.why()
    assert "5 are needed" in first
    assert "test_two_numbers failed" in second
    assert "gave 3" in second
    assert 'expected 3, got "3"' in third
    assert smithy.house.registry.get("add").evidence.attempts == 3


def test_a_reviewer_may_refuse_what_tests_let_through(smithy: Smithy) -> None:
    with pytest.raises(CapabilityMissing, match="the reviewer refuses it: because"):
        smithy.make(code=[ADD] * 3, accept=False)
    assert smithy.house.registry.all() == []


def test_permissions_that_are_never_used_are_not_given(smithy: Smithy) -> None:
    spec = adding(permissions={"read": ["**"], "write": ["**"]})
    with pytest.raises(CapabilityMissing, match="never used its permission to read and write"):
        smithy.make(spec=spec, code=[ADD] * 3)


def test_policy_has_the_last_word(smithy: Smithy) -> None:
    with pytest.raises(Denied, match="new tool may not be installed"):
        smithy.make(level=AccessLevel.READ_ONLY)
    assert len(smithy.author.asked) == 1, "nothing is written for what may not be installed"


def test_a_model_that_is_too_small_is_not_asked(smithy: Smithy) -> None:
    with pytest.raises(CapabilityMissing) as caught:
        smithy.make(compact=True)
    assert "too small to write a tool" in caught.value.hint
    assert smithy.author.asked == []


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ("", "empty"),
        ("<think>hm</think>", "empty"),
        ("I cannot do that.", "only prose"),
        ("def f():\n    return 1\n", "bare code"),
        ("```python\ndef f():\n    return 1\n", "breaks off"),
        ("```bash\nls\n```", "is bash"),
        ("```python\na = 1\n```\nand\n```python\nb = 2\n```", "2 blocks"),
        ("```python\n\n```", "is empty"),
        ("x" * 1_000_000, "characters"),
    ],
)
def test_replies_that_are_no_file(reply: str, reason: str) -> None:
    with pytest.raises(Exception, match=reason):
        code_in(reply)


def test_the_one_block_of_python_is_taken() -> None:
    assert code_in("Sure:\n```python\nx = 1\n```\nRun it with\n```bash\nls\n```") == "x = 1\n"
    assert code_in("<think>```python\ny\n```</think>~~~\nx = 1\n~~~") == "x = 1\n"


def test_each_mutant_differs_in_one_place_and_is_python() -> None:
    source = (
        "def f(a, b):\n    '''Doc.'''\n    if a > 1 and not b:\n        b += a * 2\n    return g(a, k=True) or 'x'\n"
    )
    made = mutants(source)
    assert len({each.source for each in made}) == len(made) >= 9
    for each in made:
        compile(each.source, each.what, "exec")
        assert "Doc." in each.source
    assert len(mutants(source * 20)) <= 24
