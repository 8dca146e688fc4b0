"""A verdict is what was seen, whatever tests and plugin say of themselves."""

from __future__ import annotations

import re
import sys

import pytest

from agentd.errors import Cancelled, PluginRefused
from agentd.plugins.exam import Exam, freeze
from agentd.plugins.spec import Permissions, Spec
from agentd.plugins.trial import Trial, Verdict
from agentd.sandbox.job import Limits
from agentd.sandbox.os_executor import OsExecutor
from tests.plugins.conftest import ADD, ADD_TESTS, CONVERT, CONVERT_TESTS, adding, converting

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the sandbox of Linux")
LIMITS = Limits(seconds=1.0, memory_mb=64)


def sit(executor: OsExecutor, code: str, test: str, spec: Spec | None = None) -> Verdict:
    """One test, that is the body of a function."""
    body = "".join(f"    {line}\n" for line in test.splitlines())
    exam = Exam(source=f"import files\nimport plugin\n\n\ndef test_it():\n{body}", cases=("test_it",))
    return Trial(lambda: executor, lambda: LIMITS).sit(spec or adding(), code, exam)


def test_a_good_plugin_passes_and_a_wrong_one_hears_its_last_call(executor: OsExecutor) -> None:
    exam = freeze(ADD_TESTS.replace("NAME", "add"), adding(), executor)
    trial = Trial(lambda: executor, lambda: LIMITS)
    assert trial.sit(adding(), ADD, exam).passed == 5
    verdict = trial.sit(adding(), ADD.replace("+", "-"), exam)
    assert (verdict.passed, len(verdict.failed)) == (1, 4)
    assert "(its last call: {'a': 20, 'b': 22} gave -2)" in verdict.failed["test_two_numbers"]


@pytest.mark.parametrize(
    ("test", "reason"),
    [
        ("print('1 passed')", "it never called the plugin"),
        ("plugin.add(a=1)\nraise SystemExit(0)", "SystemExit"),
        ("assert plugin.add(a=1) == 3", "AssertionError"),
        ("try:\n    plugin.subtract(a=1)\nexcept plugin.Error:\n    pass", "it never called the plugin"),
        ("while_ = [1]\nfor each in while_:\n    while_.append(each)", "memory|end within|too"),
    ],
)
def test_what_a_test_says_of_itself_is_no_verdict(executor: OsExecutor, test: str, reason: str) -> None:
    (why,) = sit(executor, ADD, test).failed.values()
    assert re.search(reason, why), why


@pytest.mark.parametrize("body", ["print('1 passed')\n    raise SystemExit(0)", "return 3", "return [1] * 10**10"])
def test_what_a_plugin_says_of_itself_is_no_verdict(executor: OsExecutor, body: str) -> None:
    assert sit(executor, f"def add(a, b=1):\n    {body}\n", "assert plugin.add(a=1) == 2").failed


def test_what_a_plugin_raises_arrives_and_a_crash_is_no_passing(executor: OsExecutor) -> None:
    raising = "def add(a, b=1):\n    raise ValueError('a is odd')\n"
    test = "try:\n    plugin.add(a=1)\nexcept plugin.Error as error:\n    assert 'odd' in str(error)"
    assert not sit(executor, raising, test).failed
    assert sit(executor, raising.replace("odd", "even"), test).failed


def test_each_test_has_a_plugin_and_files_of_its_own(executor: OsExecutor) -> None:
    code = "seen = []\ndef csv_to_json(path, target):\n    seen.append(path)\n    return {'rows': len(seen)}\n"
    source = "import files\nimport plugin\n" + "".join(
        f"def test_{letter}():\n    assert not files.exists('a')\n    files.write_text('a', 'x')\n"
        "    assert plugin.csv_to_json(path='a', target='b')['rows'] == 1\n"
        for letter in "ab"
    )
    exam = Exam(source=source, cases=("test_a", "test_b"))
    assert Trial(lambda: executor, lambda: LIMITS).sit(converting(), code, exam).passed == 2


def test_files_of_tests_and_plugin_are_the_same_and_what_was_touched_is_seen(executor: OsExecutor) -> None:
    exam = freeze(CONVERT_TESTS, converting(), executor)
    verdict = Trial(lambda: executor, lambda: LIMITS).sit(converting(), CONVERT, exam)
    assert not verdict.failed
    assert (list(verdict.used.read), list(verdict.used.write), verdict.used.beyond) == (["in.csv"], ["out.json"], {})


QUIET = "def csv_to_json(path, target):\n    try:\n        open(PATH).read()\n    except OSError:\n        pass\n"


@pytest.mark.parametrize(
    ("path", "beyond"),
    [("'.env'", [".env"]), ("path + '.key'", ["in.csv.key"]), ("'/etc/passwd'", ["/etc/passwd"]), ("path", [])],
)
def test_what_it_reached_for_by_itself_is_told_from_what_it_was_given(
    executor: OsExecutor, path: str, beyond: list[str]
) -> None:
    test = "plugin.csv_to_json(path='in.csv', target='x')"
    spec = converting(permissions=Permissions(write=("*.json",)))
    assert list(sit(executor, QUIET.replace("PATH", path), test, spec).used.beyond) == beyond


def test_a_plugin_has_its_own_permissions_and_not_those_of_its_tests(executor: OsExecutor) -> None:
    code = "import files\ndef csv_to_json(path, target):\n    return files.read_text(path)\n"
    test = "files.write_text('secret', 'x')\nassert plugin.csv_to_json(path='secret', target='t') == 'x'"
    assert "PermissionError" in sit(executor, code, test, converting()).failed["test_it"]


def test_it_ends_when_its_task_does(executor: OsExecutor) -> None:
    exam = freeze(ADD_TESTS.replace("NAME", "add"), adding(), executor)

    def cancelled() -> None:
        raise Cancelled("the task was cancelled")

    with pytest.raises(Cancelled):
        Trial(lambda: executor, lambda: LIMITS).sit(adding(), ADD, exam, pulse=cancelled)


def test_frozen_tests_have_the_digest_of_their_text(executor: OsExecutor) -> None:
    text = ADD_TESTS.replace("NAME", "add")
    exam = freeze(text, adding(), executor)
    assert exam.cases[0] == "test_two_numbers"
    assert exam.digest != freeze(text + "\n", adding(), executor).digest
    with pytest.raises(PluginRefused, match="test_x takes arguments"):
        freeze(text + "\n\ndef test_x(a):\n    assert plugin.add(a=a)\n", adding(), executor)
