"""The endpoints of servers and secrets: what they take, and what they never give out."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from agentd.backends.catalog import Catalog
from agentd.backends.catalog_sheet import ROLES
from agentd.cli.main import _COMMANDS
from agentd.errors import Denied
from agentd.policy.engine import PolicyEngine
from agentd.policy.sending import check_sending
from tests.api.conftest import Served
from tests.backends.openai_server import Good, OpenAiServer

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "guides" / "servers.md"
SECRET = "sk-very-secret-0123456789"


def test_a_secret_goes_in_and_never_comes_out(served: Served) -> None:
    assert served.client.post("/api/secrets", json={"name": "k", "value": SECRET}).json() == {"name": "k"}
    assert served.app.vault.get("k") == SECRET
    told = served.client.get("/api/secrets").text + served.client.get("/api/audit").text
    assert '"k"' in told
    assert SECRET not in told
    assert served.client.get("/api/secrets/k").status_code == 405
    assert served.client.delete("/api/secrets/k").status_code == 200
    assert served.client.delete("/api/secrets/k").status_code == 404
    kinds = [record.kind for record in served.app.audit.tail()]
    assert kinds == ["secret.set", "secret.removed"]


@pytest.mark.parametrize(
    "body",
    [{}, {"name": "k"}, {"name": "k", "value": ""}, {"name": "../k", "value": "x"}, {"name": "k", "value": 5},
     {"name": "k", "value": "x", "more": 1}, {"name": "k", "value": "x" * 20_000}],
)  # fmt: skip
def test_secrets_that_are_none(served: Served, body: object) -> None:
    assert served.client.post("/api/secrets", json=body).status_code == 400
    assert served.app.vault.names() == []


def test_a_server_is_added_listed_asked_and_removed(served: Served) -> None:
    with OpenAiServer(Good(say=lambda body: '{"city": "Rome", "days": 5}')) as server:
        body = {"name": "box", "urls": [server.url], "model": "small", "roles": ["planner"]}
        assert served.client.post("/api/backends", json=body).status_code == 200
        assert served.client.post("/api/backends", json=body).status_code == 409
        assert served.client.post("/api/backends", json=body | {"replace": True}).status_code == 200
        (listed,) = served.client.get("/api/backends").json()
        assert (listed["name"], listed["roles"], listed["denied"]) == ("box", ["planner"], None)
        assert [each["url"] for each in listed["health"]] == [server.url]
        (found,) = served.client.post("/api/backends/box/test", json={}).json()
        assert (found["ok"], found["form"]) == (True, "json_schema")
        assert served.app.models.for_role("planner").name == "box/small"
    assert served.client.delete("/api/backends/box").status_code == 409
    assert served.client.delete("/api/backends/box?models=true").json() == {"removed": "box"}
    assert served.client.get("/api/backends").json() == []
    assert served.client.post("/api/backends/box/test", json={}).status_code == 404


def test_two_addresses_share_the_work(served: Served) -> None:
    with OpenAiServer(Good()) as one, OpenAiServer(Good()) as two:
        body = {"name": "pair", "urls": [one.url, two.url], "weights": [3, 1]}
        made = served.client.post("/api/backends", json=body).json()
        assert (made["urls"], made["weights"]) == ([one.url, two.url], [3.0, 1.0])
        assert [each["ok"] for each in served.client.post("/api/backends/pair/test", json={}).json()] == [True, True]


def test_a_role_whose_first_server_is_denied_takes_the_next(served: Served) -> None:
    before = served.app.models.for_role("planner").name
    body = {"name": "cloud", "urls": ["https://api.example.com"], "model": "big", "roles": ["planner"]}
    assert served.client.post("/api/backends", json=body).json()["denied"]["message"].startswith("nothing may be sent")
    assert served.app.models.for_role("planner").name == before


def test_the_password_of_a_proxy_is_not_listed(served: Served) -> None:
    proxy = "http://me:pa55word@127.0.0.1:3128"
    body = {"name": "box", "urls": ["http://127.0.0.1:1/v1"], "proxy": proxy}
    assert served.client.post("/api/backends", json=body).status_code == 200
    assert "pa55word" not in served.client.get("/api/backends").text + served.client.get("/api/audit").text


@pytest.mark.parametrize(
    "more",
    [{"urls": []}, {"urls": ["nowhere"]}, {"urls": ["ftp://x"]}, {"urls": ["http://a:b@c/"]}, {"urls": None},
     {"name": ""}, {"name": "a/b"}, {"name": "agentd"}, {"timeout": -1}, {"weights": [1.0, 2.0]}, {"key": "../k"},
     {"proxy": "x"}, {"roles": ["boss"], "model": "m"}, {"roles": ["planner"]}, {"more": 1}],
)  # fmt: skip
def test_servers_that_are_none(served: Served, more: dict[str, object]) -> None:
    refused = served.client.post("/api/backends", json={"name": "box", "urls": ["http://127.0.0.1:1"]} | more)
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "input.invalid")
    assert served.client.get("/api/backends").json() == []


def test_a_catalog_that_is_wrong_is_no_fault_of_ours(served: Served) -> None:
    folder = served.app.catalog.folder
    folder.mkdir(exist_ok=True)
    (folder / "catalog.toml").write_text("[rolls]\n")
    refused = served.client.post("/api/backends", json={"name": "box", "urls": ["http://127.0.0.1:1"]})
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "config.invalid")
    assert (folder / "catalog.toml").read_text() == "[rolls]\n"


def snippets(language: str) -> list[str]:
    found = re.findall(rf"^```{language}\n(.*?)^```", GUIDE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert found
    return found


def test_the_catalog_of_the_guide_can_be_read(tmp_path: Path) -> None:
    (text,) = snippets("toml")
    (written,) = tomllib.loads(text)["servers"].values()
    others = "".join(f'{role} = ["ollama/x"]\n' for role in ROLES if role != "planner")
    more = '[models.smollm2-135m]\nfile = "x.gguf"\n'
    catalog = Catalog.parse(tmp_path / "catalog.toml", f"{text}{others}{more}", tmp_path)
    server = catalog.server("ollama")
    assert server.urls == ("http://127.0.0.1:11434/v1",)
    assert set(written) == {"url", "key", "timeout", "connect_timeout", "proxy", "verify"}


def test_the_rule_of_the_guide_allows_what_it_shows(tmp_path: Path, policy: PolicyEngine) -> None:
    (rule,) = snippets("yaml")
    (tmp_path / "default.yaml").write_text(rule)
    (tmp_path / "levels.yaml").write_text(
        "".join(f"- {{level: {n}, name: n, about: a, rules: []}}\n" for n in range(5))
    )
    check_sending(PolicyEngine.load(tmp_path), "api.example.com", 443)
    with pytest.raises(Denied):
        check_sending(policy, "api.example.com", 443)


def test_the_commands_of_the_guide_are_there() -> None:
    named = re.findall(r"agentd (\w+)", "".join(snippets("sh")))
    assert {"setup", "backend", "secret"} <= set(named) <= set(_COMMANDS)
