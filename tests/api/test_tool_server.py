"""Our tools for other agents: what they are called, what they give back, and what is refused."""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any

import pytest
from httpx2 import Response

from tests.api.conftest import Served

JSON = {"Content-Type": "application/json"}


def post(served: Served, name: str, *, where: bool = True, **body: Any) -> Response:
    workspace = {"workspace": str(served.workspace)} if where else {}
    return served.client.post(f"/tools/{name}", content=json.dumps(workspace | body), headers=JSON)


def done(served: Served, name: str, **body: Any) -> dict[str, Any]:
    reply = post(served, name, **body)
    assert reply.status_code == 200, reply.text
    found: dict[str, Any] = reply.json()
    assert set(found) == {"ok", "text", "data", "changed", "handle"}
    return found


def error_of(reply: Response) -> tuple[int, str]:
    return reply.status_code, reply.json()["error"]["code"]


def text_of(served: Served, name: str = "notes.txt") -> str:
    return (served.workspace / name).read_text()


# what they do ---------------------------------------------------------------------------------------------------------


def test_a_file_is_read_and_a_folder_listed(served: Served) -> None:
    assert done(served, "read_file", path="notes.txt")["text"] == "milk\nbread\n"
    assert done(served, "read_file", path="notes.txt", start=2, lines=1)["text"] == "bread\n"
    assert done(served, "list_dir")["data"]["entries"] == ["notes.txt"]


def test_a_file_is_written_whole(served: Served) -> None:
    assert done(served, "write_file", path="new/a.txt", content="x\n")["changed"] == ["new/a.txt"]
    assert text_of(served, "new/a.txt") == "x\n"
    done(served, "write_file", path="notes.txt", content="", mode="overwrite")
    assert text_of(served) == ""


@pytest.mark.parametrize(
    "patch",
    [
        {"search": "milk", "replace": "oats"},
        {"diff": "--- a/notes.txt\n+++ b/notes.txt\n@@ -1,2 +1,2 @@\n-milk\n+oats\n bread\n"},
    ],
)
def test_a_part_of_a_file_is_patched(served: Served, patch: dict[str, str]) -> None:
    assert done(served, "write_file", path="notes.txt", mode="patch", **patch)["changed"] == ["notes.txt"]
    assert text_of(served) == "oats\nbread\n"


def test_a_patch_that_does_not_fit_changes_nothing_and_says_so(served: Served) -> None:
    result = done(served, "write_file", path="notes.txt", mode="patch", search="beer", replace="wine")
    assert (result["ok"], result["changed"]) == (False, [])
    assert "does not stand in the file" in result["text"]
    assert text_of(served) == "milk\nbread\n"


def test_text_is_found(served: Served) -> None:
    found = done(served, "search", text="BREAD", ignore_case=True)["data"]["matches"]
    assert found == [{"path": "notes.txt", "line": 2, "text": "bread"}]
    assert done(served, "search", text="^m..k$", regex=True)["data"]["count"] == 1


def test_git_and_programs_run_as_the_level_allows(served: Served) -> None:
    subprocess.run(["git", "init", "-q"], cwd=served.workspace, check=True)
    shown = done(served, "git", args=["status", "--short"])
    assert (shown["data"]["code"], "notes.txt" in shown["text"]) == (0, True)
    made = done(served, "git", args=["commit", "-am", "a message; with 'marks'"], level=3)
    assert "nothing was committed" in made["text"]
    (served.workspace / "test_a.py").write_text("def test_a():\n    assert False\n")
    run = done(served, "shell", command="pytest -q -p no:cacheprovider test_a.py")
    assert (run["ok"], run["data"]["code"]) == (True, 1)


def test_a_long_text_is_cut_and_read_on(served: Served) -> None:
    (served.workspace / "long.txt").write_text("".join(f"line {number}\n" for number in range(1, 3000)))
    cut = done(served, "read_file", path="long.txt", lines=3000)
    assert cut["handle"]
    rest = done(served, "read_output", handle=cut["handle"], start=1500, lines=1)
    assert rest["text"].splitlines()[1] == "line 1500"


def test_a_name_that_is_no_text_does_not_break_the_answer(served: Served) -> None:
    with open(os.fsencode(served.workspace) + b"/\xff.txt", "w") as file:
        file.write("milk\n")
    assert done(served, "list_dir")["ok"]
    assert done(served, "search", text="milk")["ok"]


# refused --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "body", "rule"),
    [
        ("shell", {"command": "curl https://example.org"}, "rule "),
        ("shell", {"command": "bash -c ls"}, "rule shells"),
        ("git", {"args": ["push", "origin"]}, "rule git-publishing"),
        ("git", {"args": ["-c", "alias.x=!sh", "x"]}, "rule "),
        ("read_file", {"path": "../secret.txt"}, "rule "),
        ("write_file", {"path": "a.txt", "content": "x", "level": 0}, "rule default"),
        ("shell", {"command": "pytest -q", "level": 1}, "rule default"),
    ],
)
def test_policy_says_no_with_its_rule_and_reason(served: Served, name: str, body: dict[str, Any], rule: str) -> None:
    before = sorted(served.workspace.iterdir())
    reply = post(served, name, **body)
    assert error_of(reply) == (403, "policy.denied")
    error = reply.json()["error"]
    assert error["hint"].startswith(rule)
    assert "is denied: " in error["message"]
    assert sorted(served.workspace.iterdir()) == before
    decided = [record for record in served.app.audit.tail() if record.kind == "tool.decided"]
    assert [record.data["decision"] for record in decided] == ["deny"]


def test_no_level_above_the_highest(served: Served) -> None:
    reply = post(served, "shell", command="ls", level=4)
    assert error_of(reply) == (403, "policy.denied")
    assert "level 4 is above the highest" in reply.json()["error"]["message"]


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("read_file", {}),
        ("read_file", {"path": "a", "pth": "b"}),
        ("read_file", {"path": ["a"]}),
        ("read_file", {"path": "a", "start": 0}),
        ("read_file", {"path": "a", "level": 9}),
        ("write_file", {"path": "a"}),
        ("write_file", {"path": "a", "content": "x", "search": "y"}),
        ("write_file", {"path": "a", "content": "x", "mode": "patch"}),
        ("write_file", {"path": "a", "content": "x", "mode": "append"}),
        ("git", {"args": []}),
        ("git", {"args": "status"}),
        ("shell", {"command": ""}),
        ("shell", {"command": "echo 'a"}),
        ("search", {"text": ""}),
        ("search", {"text": "(", "regex": True}),
    ],
)
def test_wrong_bodies_are_refused_and_nothing_runs(served: Served, name: str, body: dict[str, Any]) -> None:
    reply = post(served, name, **body)
    if reply.status_code == 200:  # what only the tool itself can see
        assert not reply.json()["ok"]
    else:
        assert reply.status_code == 400
    assert text_of(served) == "milk\nbread\n"


@pytest.mark.parametrize("text", ["", "\0", "a\0b", "\ud800", "../" * 3000, "💥" * 500, "$(id)", "a\r\nb", "-" * 300])
@pytest.mark.parametrize(("name", "key"), [("read_file", "path"), ("search", "text"), ("shell", "command")])
def test_strange_texts_never_break_it(served: Served, name: str, key: str, text: str) -> None:
    assert post(served, name, **{key: text}).status_code < 500


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b'"x"',
        b"{",
        b"\xff\xfe{}",
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b'{"path": NaN}',
        b'{"path": "a", "start": 1e400}',
        b'{"path": "a", "start": ' + b"9" * 5000 + b"}",
        b'{"path": "a", "path": {"b": 1}}',
        b'{"path": "\\ud800", "workspace": "\\udc00"}',
    ],
)
def test_bodies_that_are_none_are_refused(served: Served, body: bytes) -> None:
    assert served.client.post("/tools/read_file", content=body, headers=JSON).status_code == 400


def test_what_is_not_offered(served: Served) -> None:
    assert error_of(served.client.post("/tools/delete_path", json={})) == (404, "input.not_found")
    assert error_of(served.client.get("/tools/read_file")) == (405, "input.method")
    assert error_of(served.client.get("/tools?format=xml")) == (400, "input.invalid")


# where ----------------------------------------------------------------------------------------------------------------


def test_the_workspace_comes_from_body_header_or_setting(served: Served) -> None:
    read = {"path": "notes.txt"}
    refused = post(served, "read_file", where=False, **read)
    assert error_of(refused) == (400, "input.invalid")
    assert "X-Agentd-Workspace" in refused.json()["error"]["hint"]
    header = {"X-Agentd-Workspace": str(served.workspace)}
    assert served.client.post("/tools/read_file", json=read, headers=header).json()["ok"]
    served.app.change_settings({"api.workspace": str(served.workspace)})
    assert post(served, "read_file", where=False, **read).json()["ok"]
    other = served.workspace / "other"
    other.mkdir()
    assert not served.client.post("/tools/read_file", json=read, headers={"X-Agentd-Workspace": str(other)}).json()[
        "ok"
    ]


@pytest.mark.parametrize("workspace", ["notes", "/", "/nowhere/at/all", "/dev/null", "a\0b", "\ud800"])
def test_no_folder_to_work_in(served: Served, workspace: str) -> None:
    assert error_of(post(served, "list_dir", workspace=workspace)) == (400, "input.invalid")


# listed ---------------------------------------------------------------------------------------------------------------


def test_the_tools_are_listed_for_agents(served: Served) -> None:
    plain = {tool["name"]: tool for tool in served.client.get("/tools").json()}
    assert list(plain) == ["read_file", "write_file", "list_dir", "search", "git", "shell", "read_output"]
    assert plain["shell"]["path"] == "/tools/shell"
    functions = served.client.get("/tools?format=openai").json()
    assert {tool["type"] for tool in functions} == {"function"}
    assert [tool["function"]["name"] for tool in functions] == list(plain)
    for tool in functions:
        parameters = tool["function"]["parameters"]
        assert {"workspace", "level"}.isdisjoint(parameters["properties"])
        assert set(parameters["required"]) <= set(parameters["properties"])
        assert all(each["description"] for each in parameters["properties"].values())
        assert tool["function"]["description"]
    assert plain["read_file"]["parameters"]["required"] == ["path"]


def test_the_arguments_of_a_function_call_are_a_body(served: Served) -> None:
    """What a model wrote as arguments is posted as it is; where to work stands in the header."""
    header = {"X-Agentd-Workspace": str(served.workspace)}
    reply = served.client.post("/tools/search", content='{"text": "bread"}', headers=JSON | header)
    assert reply.json()["data"]["count"] == 1


@pytest.mark.parametrize("level", [0, 2, 3])
def test_no_workspace_opens_the_keys_of_the_home(served: Served, level: int) -> None:
    home = served.app.settings.home
    (home / "state").mkdir(exist_ok=True)
    (home / "state" / "token").write_text("geheim\n")
    for folder, path in ((home / "state", "token"), (home, "state/token"), (home.parent, f"{home.name}/state/token")):
        told = post(served, "read_file", workspace=str(folder), path=path, level=level, where=False)
        assert error_of(told) == (403, "policy.denied")
        found = post(served, "search", workspace=str(folder), text="geheim", level=level, where=False)
        assert "geheim" not in json.dumps(found.json()["data"] if found.status_code == 200 else {})
    if level:
        wrote = post(
            served, "write_file", workspace=str(home), path="agentd.toml", content="", level=level, where=False
        )
        assert error_of(wrote) == (403, "policy.denied")
