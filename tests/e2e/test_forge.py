"""The agent lacks a tool, gives itself one, and has it from then on; the real daemon, its models' words scripted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.harness import Agentd, wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.slow]
PEOPLE = "name,age\nann,31\nbob,28\n"
ROWS = [{"name": "ann", "age": "31"}, {"name": "bob", "age": "28"}]


def as_json(rows: list[dict[str, str]]) -> str:
    return json.dumps(rows, indent=1) + "\n"


SPEC = {
    "name": "csv_to_json",
    "purpose": "Convert a CSV file with a header to a JSON file with a list of objects.",
    "input": {
        "type": "object",
        "properties": {
            "path": {"type": "string", "x-grounding": "file"},
            "target": {"type": "string", "x-grounding": "new_path"},
        },
        "required": ["path", "target"],
    },
    "output": {"type": "object", "properties": {"rows": {"type": "integer"}}, "required": ["rows"]},
    "postconditions": ["The target holds one object for each line after the header."],
    "examples": [
        {
            "args": {"path": "people.csv", "target": "people.json"},
            "result": {"rows": 2},
            "files": {"people.csv": PEOPLE},
            "files_after": {"people.json": as_json(ROWS)},
        },
        {
            "args": {"path": "a.csv", "target": "a.json"},
            "result": {"rows": 0},
            "files": {"a.csv": "x\n"},
            "files_after": {"a.json": "[]\n"},
        },
        {
            "args": {"path": "q.csv", "target": "q.json"},
            "result": {"rows": 1},
            "files": {"q.csv": 'x\n"1,2"\n'},
            "files_after": {"q.json": as_json([{"x": "1,2"}])},
        },
    ],
    "requests": [
        "Convert {path} to {target}",
        "Turn {path} into {target}",
        "Make {target} out of {path}",
        "Write the rows of {path} as JSON to {target}",
    ],
    "permissions": {"read": ["**/*.csv"], "write": ["**/*.json"]},
}
TESTS = """```python
import files
import json
import plugin


def convert(text):
    files.write_text("in.csv", text)
    result = plugin.csv_to_json(path="in.csv", target="out.json")
    return result["rows"], json.loads(files.read_text("out.json"))


def test_two_rows():
    assert convert("a,b\\n1,2\\n3,4\\n") == (2, [{"a": "1", "b": "2"}, {"a": "3", "b": "4"}])


def test_header_alone():
    assert convert("a,b\\n") == (0, [])


def test_quoted():
    assert convert('a\\n"x,y"\\n') == (1, [{"a": "x,y"}])


def test_text_as_it_is():
    convert("a\\nü\\n")
    assert files.read_text("out.json") == '[\\n {\\n  "a": "\\\\u00fc"\\n }\\n]\\n'


def test_missing_file():
    try:
        plugin.csv_to_json(path="none.csv", target="out.json")
    except plugin.Error:
        assert not files.exists("out.json")
        return
    assert False, "it should have failed"
```"""
CODE = '''```python
import csv
import json


def csv_to_json(path, target):
    """Convert a CSV file."""
    with open(path, newline="") as source:
        rows = list(csv.DictReader(source))
    with open(target, "w") as out:
        json.dump(rows, out, indent=1)
        out.write("\\n")
    return {"rows": len(rows)}
```'''
WRONG = CODE.replace("list(csv.DictReader(source))", "list(csv.DictReader(source))[:1]")
LAZY_TESTS = TESTS.replace("assert convert", "convert").replace(' == (2, [{"a"', ' or [({"a"')


def words(**parts: list[Any]) -> list[dict[str, Any]]:
    """What the models say; `parts` in place of the replies of the forge."""
    said: dict[str, list[Any]] = {
        "spec": [json.dumps(SPEC)],
        "tests": [TESTS],
        "code": [CODE],
        "review": [{"accept": True, "reason": "It does what it says."}],
        "council": [{"decision": "accept", "because": "It writes what it is told."}],
    } | parts
    return [
        {"when": ["You are the Reviewer"], "replies": [{"decision": "accept", "because": "It is clear."}] * 3},
        {"when": ["You are Security"], "replies": said["council"] * 3},
        {"when": "Make the shortest plan", "replies": [{"steps": [{"intent": "Convert people.csv to people.json"}]}]},
        {"when": ["Specify one small Python function"], "replies": said["spec"]},
        {"when": ["Write the tests of a Python function"], "replies": said["tests"]},
        {"when": ["Write this Python function"], "replies": said["code"]},
        {"when": ["A tool is to be given to an agent"], "replies": said["review"]},
        {"when": ["You chose `need_new_tool`"], "replies": ["It would have to convert CSV to JSON."]},
        {"when": ["Arguments for csv_to_json"], "replies": [{"path": "people.csv", "target": "people.json"}]},
        {"when": ["You chose `answer`"], "replies": ["people.json is written."]},
        {"when": ["Does what was done give"], "replies": [{"done": True}]},
        {"when": ["What next?", "csv_to_json("], "replies": ["csv_to_json", "answer"]},
        {"when": ["What next?"], "replies": ["need_new_tool", "need_new_tool"]},
    ]


def speak(agentd: Agentd, folder: Path, **parts: list[Any]) -> None:
    script = folder / "script.yaml"
    script.write_text(json.dumps(words(**parts)), encoding="utf-8")
    agentd.speak(script)


def asked_for_code(agentd: Agentd) -> int:
    calls = [each for each in agentd.json("audit", "tail", "-n", "1000") if each["kind"] == "model.called"]
    return sum(each["data"]["role"] == "coder" for each in calls)


def test_a_tool_is_made_used_and_used_again(fresh: Agentd, tmp_path: Path) -> None:
    speak(fresh, tmp_path)
    fresh.files({"people.csv": PEOPLE})
    done = fresh.run("run", "Convert people.csv to people.json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "new tool csv_to_json 1: proven, signed and in use" in done.stderr
    assert json.loads((fresh.workspace / "people.json").read_text()) == ROWS
    assert (fresh.workspace / "people.csv").read_text() == PEOPLE
    (plugin,) = fresh.json("plugin", "ls")["plugins"]
    assert (plugin["name"], plugin["state"]) == ("csv_to_json", "provisional")
    evidence = fresh.json("plugin", "show", "csv_to_json")["evidence"]
    assert evidence["controls"] == evidence["controls_killed"] >= 5
    assert evidence["mutants"] >= 8
    assert evidence["cases"] == 5
    assert asked_for_code(fresh) == 1
    # a like task does without the forge
    (fresh.workspace / "people.json").unlink()
    assert fresh.run("run", "Convert people.csv to people.json").returncode == 0
    assert json.loads((fresh.workspace / "people.json").read_text()) == ROWS
    assert asked_for_code(fresh) == 1
    assert fresh.json("audit", "verify")["ok"] is True


def test_code_that_fails_is_sent_back_with_the_case(fresh: Agentd, tmp_path: Path) -> None:
    speak(fresh, tmp_path, code=["I would use pandas.", WRONG, CODE])
    fresh.files({"people.csv": PEOPLE})
    done = fresh.run("run", "Convert people.csv to people.json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "code refused: there is no fenced block" in done.stderr
    assert "code refused: example 1 of csv_to_json: expected" in done.stderr
    assert fresh.json("plugin", "show", "csv_to_json")["evidence"]["attempts"] == 3


def test_tests_that_prove_nothing_are_sent_back_and_then_refused(fresh: Agentd, tmp_path: Path) -> None:
    nothing = "```python\nimport plugin\ndef test_a():\n    plugin.csv_to_json(path='a', target='b')\n```"
    always = "```python\nimport plugin\n" + "".join(
        f"def test_{letter}():\n    x = 1\n    try:\n        plugin.csv_to_json(path='a', target='b')\n"
        "    except plugin.Error:\n        pass\n    assert x\n"
        for letter in "abcde"
    )
    speak(fresh, tmp_path, tests=[nothing, "", always + "```"])
    fresh.files({"people.csv": PEOPLE})
    done = fresh.run("run", "Convert people.csv to people.json")
    assert done.returncode == 3
    for reason in (
        "1 functions test_..., 5 are needed",
        "the reply is empty",
        "a version that does nothing passes the tests",
    ):
        assert reason in done.stderr + done.stdout
    assert fresh.json("plugin", "ls")["plugins"] == []
    assert not (fresh.workspace / "people.json").exists()


def test_security_has_a_veto_on_a_tool_that_writes_files(fresh: Agentd, tmp_path: Path) -> None:
    speak(fresh, tmp_path, council=[{"decision": "reject", "because": "It overwrites any JSON file."}])
    fresh.files({"people.csv": PEOPLE})
    done = fresh.run("run", "Convert people.csv to people.json")
    assert done.returncode == 3
    assert "council refused: veto of the council: Security: It overwrites any JSON file." in done.stderr
    assert fresh.json("plugin", "ls")["plugins"] == []
    assert asked_for_code(fresh) == 1


def test_a_person_has_a_tool_made(fresh: Agentd, tmp_path: Path) -> None:
    speak(fresh, tmp_path)
    fresh.files({"people.csv": PEOPLE})
    assert fresh.error("plugin", "new", code=2)["code"] == "input.invalid"
    done = fresh.run("plugin", "new", "Convert people.csv to people.json")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "csv_to_json 1 is made, proven, signed and in use."
    assert not (fresh.workspace / "people.json").exists(), "it is made and not used"
    again = fresh.run("plugin", "new", "Convert", "people.csv", "to", "people.json")
    assert again.stdout.strip() == "csv_to_json 1 was there already and does it."
    assert asked_for_code(fresh) == 1


@pytest.mark.parametrize("stage", ["spec", "tests", "code", "installed"])
def test_killed_in_the_forge_it_goes_on_and_nothing_half_is_there(fresh: Agentd, tmp_path: Path, stage: str) -> None:
    speak(fresh, tmp_path)
    fresh.files({"people.csv": PEOPLE})
    fresh.ok("up")
    task = fresh.json("submit", "Convert people.csv to people.json")["id"]
    wait_for(lambda: reached(fresh, task, stage))
    fresh.kill()
    assert [path.name for path in fresh.home.plugins_dir.glob("*/*/plugin.py")] in ([], ["plugin.py"])
    fresh.ok("up")
    assert fresh.json("wait", task)[0]["state"] == "claimed"
    assert json.loads((fresh.workspace / "people.json").read_text()) == ROWS
    assert [plugin["version"] for plugin in fresh.json("plugin", "ls")["plugins"]] == [1]
    assert asked_for_code(fresh) == 1


def reached(agentd: Agentd, task: str, stage: str) -> bool:
    """Whether the forge has come to the end of this stage."""
    return any(
        each["kind"] == "PluginInstalled" or (each["kind"] == "PluginForged" and each["data"]["stage"] == stage)
        for each in events(agentd, task)
    )


def events(agentd: Agentd, task: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in agentd.ok("logs", task, "--json").splitlines()]


def test_the_small_model_uses_what_a_larger_one_has_made(fresh: Agentd, tmp_path: Path) -> None:
    own = (fresh.home.models_dir / "catalog.toml").read_text(encoding="utf-8")
    speak(fresh, tmp_path)
    fresh.files({"people.csv": PEOPLE, "pets.csv": "pet\ncat\n"})
    assert fresh.run("run", "Convert people.csv to people.json").returncode == 0
    fresh.ok("down")
    (fresh.home.models_dir / "catalog.toml").write_text(own, encoding="utf-8")
    done = fresh.run("run", "Turn pets.csv into pets.json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads((fresh.workspace / "pets.json").read_text()) == [{"pet": "cat"}]
    models = {each["model"] for each in fresh.json("plugin", "show", "csv_to_json")["models"]}
    assert models == {"words", "smollm2-135m"}
