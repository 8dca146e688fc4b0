"""Calls by hand: what policy wants asked is shown first, and a yes covers exactly that."""

from __future__ import annotations

from typing import Any

from httpx2 import Response

from tests.api.conftest import Served

KEY = "ghp_" + "aB3dE5fG7h" * 3 + "Zx9Kq2"


def call(served: Served, content: str = "new\n", **more: Any) -> Response:
    args = {"path": "setup.cfg", "content": content, "mode": "overwrite"}
    body = {"args": args, "workspace": str(served.workspace), "level": 1, **more}
    return served.client.post("/api/tools/write_file/call", json=body)


def asked(answer: Response) -> dict[str, Any]:
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "policy.needs_approval")
    found: dict[str, Any] = answer.json()["error"]["asked"]
    return found


def test_a_yes_covers_what_was_shown_and_nothing_else(served: Served) -> None:
    file = served.workspace / "setup.cfg"
    file.write_text("old\n")
    request = asked(call(served, by="ann"))
    assert ("-old\n+new\n" in request["shown"], request["actions"]) == (True, ["fs.write setup.cfg"])
    file.write_text("other\n")
    again = asked(call(served, by="ann", approved=[request["digest"]]))
    assert ("-other\n+new\n" in again["shown"], again["digest"] != request["digest"]) == (True, True)
    asked(call(served, "newer\n", by="ann", approved=[again["digest"]]))
    assert file.read_text() == "other\n"
    done = call(served, by="ann", approved=[request["digest"], again["digest"]])
    assert (done.status_code, file.read_text()) == (200, "new\n")
    told = [record.data for record in served.app.audit.tail() if record.kind == "tool.decided"]
    assert [each.get("by") for each in told] == [None, None, None, "ann"]


def test_who_is_shown_it_sees_no_secret(served: Served) -> None:
    (served.workspace / "setup.cfg").write_text(f"key = {KEY}\n")
    request = asked(call(served, f"key = {KEY}\nx\n", by="ann"))
    assert " key = [left out: GitHub token]\n+x\n" in request["shown"]


def test_where_nobody_is_there_nothing_can_be_answered(served: Served) -> None:
    error = call(served).json()["error"]
    assert (error["code"], "asked" in error) == ("policy.needs_approval", False)
