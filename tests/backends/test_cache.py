"""Kept replies: to exactly the same request only, of the same model only, whole ones only, and never in the way."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from agentd.backends.cache import ReplyCache
from agentd.config import CacheSettings
from agentd.errors import Conflict, NotFound
from agentd.store.db import Database
from agentd.types import FunctionCall, Message, ModelReply, ModelRequest, Priority, TokenLogprob
from tests.store.conftest import StillClock

IDENTITY = {"entry": "one", "files": [["one.gguf", 7, 1]]}
REQUEST = ModelRequest(messages=(Message(role="user", content="Say é"),))
SCHEMA = {"type": "object", "properties": {"b": {"type": "integer"}, "a": {}}, "required": ["b"]}
CALL = FunctionCall(id="c1", name="look", arguments="{}")
REPLY = ModelReply(
    text="é\n",
    model="one",
    prompt_tokens=5,
    completion_tokens=2,
    seconds=3.0,
    reasoning="hm",
    reused_tokens=4,
    logprobs=(TokenLogprob(token="é", logprob=-math.inf, bytes=(195, 169), id=3, top=(("é", -0.5),)),),
)


@pytest.fixture
def clock() -> StillClock:
    return StillClock()


@pytest.fixture
def db(tmp_path: Path, clock: StillClock) -> Iterator[Database]:
    db = Database(tmp_path / "agentd.db", clock=clock)
    yield db
    db.close()


@pytest.fixture
def cache(db: Database, clock: StillClock) -> ReplyCache:
    return ReplyCache(db, clock, lambda: CacheSettings())


def keep(cache: ReplyCache, request: ModelRequest, reply: ModelReply = REPLY) -> str:
    key = cache.key(request, IDENTITY)
    assert key is not None
    cache.put(key, request, reply)
    return key


def asking(text: str) -> ModelRequest:
    return replace(REQUEST, messages=(Message(role="user", content=text),))


def test_the_same_request_gets_the_same_reply_and_is_told(cache: ReplyCache, clock: StillClock) -> None:
    key = cache.key(REQUEST, IDENTITY)
    assert cache.get(key) is None
    cache.put(key, REQUEST, REPLY)
    clock.time += 60
    found = cache.get(cache.key(replace(REQUEST), dict(IDENTITY)))
    assert found is not None
    assert found == replace(REPLY, cached=True, seconds=found.seconds, reused_tokens=0)
    assert found.seconds < 1.0, "not those of the first time"
    (row,) = cache.rows()
    assert (row["key"], row["model"], row["hits"], row["used"] - row["created"]) == (key, "one", 1, 60)
    stats = cache.stats()
    assert (stats["replies"], stats["given"], stats["hits"], stats["misses"]) == (1, 1, 1, 1)
    assert stats["bytes"] == row["bytes"] > 0


def test_calls_of_tools_are_kept(cache: ReplyCache) -> None:
    reply = replace(REPLY, text="", tool_calls=(CALL,), finish_reason="tool_calls", logprobs=())
    found = cache.get(keep(cache, REQUEST, reply))
    assert found is not None
    assert found.tool_calls == (CALL,)


def test_every_field_that_shapes_a_reply_is_a_part_of_the_key(cache: ReplyCache) -> None:
    others: dict[str, Any] = {
        "messages": (Message(role="user", content="Say e"),),
        "prompt": "Say",
        "suffix": "it",
        "tools": ({"name": "look", "description": "", "parameters": {}},),
        "tool_choice": "none",
        "max_tokens": 513,
        "top_p": 0.9,
        "top_k": 41,
        "min_p": 0.1,
        "frequency_penalty": 0.1,
        "presence_penalty": 0.1,
        "repeat_penalty": 1.1,
        "logit_bias": {3: -100.0},
        "logprobs": 0,
        "seed": 1,
        "stop": ("x",),
        "ignore_eos": True,
        "schema": SCHEMA,
        "grammar": "start: /a/",
        "choices": ("a", "b"),
        "think": True,
    }
    same: dict[str, Any] = {
        "client": "task",
        "timeout": 1.0,
        "priority": Priority.NIGHT,
        "hedge": True,
    }
    special = {"temperature", "cache"}
    left_out = {field.name for field in fields(ModelRequest)} - set(others) - set(same) - special
    assert not left_out, "a new field of ModelRequest: does it shape the reply?"
    key = cache.key(REQUEST, IDENTITY)
    keys = {cache.key(replace(REQUEST, **{name: value}), IDENTITY) for name, value in others.items()}
    assert len(keys | {key}) == len(others) + 1
    assert None not in keys
    assert {cache.key(replace(REQUEST, **{name: value}), IDENTITY) for name, value in same.items()} == {key}


def test_the_order_of_fields_in_a_schema_matters(cache: ReplyCache) -> None:
    turned = SCHEMA | {"properties": {"a": {}, "b": {"type": "integer"}}}
    assert cache.key(replace(REQUEST, schema=SCHEMA), IDENTITY) != cache.key(replace(REQUEST, schema=turned), IDENTITY)


def test_another_file_under_the_same_name_is_another_model(cache: ReplyCache) -> None:
    keep(cache, REQUEST)
    assert cache.get(cache.key(REQUEST, IDENTITY | {"files": [["one.gguf", 7, 2]]})) is None


@pytest.mark.parametrize(
    "request_",
    [replace(REQUEST, temperature=0.1), replace(REQUEST, cache=False), replace(REQUEST, schema={"a": {1, 2}})],
)
def test_requests_that_are_not_kept(cache: ReplyCache, request_: ModelRequest) -> None:
    assert cache.key(request_, IDENTITY) is None
    cache.put(None, request_, REPLY)
    assert cache.get(None) is None
    assert cache.stats()["replies"] == 0


def test_no_key_for_what_never_says_the_same_again_nor_while_it_is_off(db: Database, clock: StillClock) -> None:
    settings = [CacheSettings()]
    cache = ReplyCache(db, clock, lambda: settings[0])
    assert cache.key(REQUEST, None) is None
    assert cache.key(REQUEST, IDENTITY) is not None
    settings[0] = CacheSettings(enabled=False)
    assert cache.key(REQUEST, IDENTITY) is None


def test_a_request_of_hostile_depth_is_not_kept(cache: ReplyCache) -> None:
    deep: dict[str, Any] = {}
    for _ in range(100_000):
        deep = {"a": deep}
    assert cache.key(replace(REQUEST, schema=deep), IDENTITY) is None
    while deep:  # taken apart by hand: the interpreter would go down it too
        deep = deep["a"]


@pytest.mark.parametrize(
    ("request_", "reply"),
    [
        (REQUEST, replace(REPLY, finish_reason="length")),
        (REQUEST, replace(REPLY, finish_reason="cancelled")),
        (REQUEST, replace(REPLY, text="")),
        (REQUEST, replace(REPLY, text="\ud800")),
        (REQUEST, replace(REPLY, cached=True)),
        (replace(REQUEST, schema=SCHEMA), replace(REPLY, text='{"b": "no number"}')),
        (replace(REQUEST, schema=SCHEMA), replace(REPLY, text='{"b": 1')),
        (replace(REQUEST, choices=("a", "b")), replace(REPLY, text="c")),
    ],
)
def test_replies_that_are_not_kept(cache: ReplyCache, request_: ModelRequest, reply: ModelReply) -> None:
    assert cache.get(keep(cache, request_, reply)) is None


def test_a_reply_of_the_wanted_form_is_kept(cache: ReplyCache) -> None:
    assert cache.get(keep(cache, replace(REQUEST, schema=SCHEMA), replace(REPLY, text='{"b": 1}')))
    assert cache.get(keep(cache, replace(REQUEST, choices=("a", "b")), replace(REPLY, text="b")))


def test_those_unused_for_longest_go_when_room_is_short(db: Database, clock: StillClock) -> None:
    cache = ReplyCache(db, clock, lambda: CacheSettings(max_mb=1))
    keys = []
    for number in range(10):
        clock.time += 1
        keys.append(keep(cache, asking(str(number)), replace(REPLY, text="x" * 100_000)))
    clock.time += 1
    assert cache.get(keys[0]), "used just now"
    clock.time += 1
    keys.append(keep(cache, asking("one too many"), replace(REPLY, text="x" * 100_000)))
    there = [key for key in keys if cache.get(key)]
    assert there == [keys[0], *keys[3:]], "down to nine tenths, so that it is not done at each reply"
    stats = cache.stats()
    assert stats["bytes"] <= stats["max_bytes"] * 9 // 10
    keep(cache, asking("too large by itself"), replace(REPLY, text="x" * 200_000))
    assert cache.stats()["replies"] == len(there)


def test_what_a_daemon_before_kept_counts(db: Database, clock: StillClock) -> None:
    for number in range(10):
        clock.time += 1
        keep(ReplyCache(db, clock, lambda: CacheSettings()), asking(str(number)), replace(REPLY, text="x" * 120_000))
    small = ReplyCache(db, clock, lambda: CacheSettings(max_mb=1))
    keep(small, asking("new"))
    assert small.stats()["bytes"] <= small.stats()["max_bytes"]


def test_the_same_again_counts_once(cache: ReplyCache) -> None:
    for text in ("long " * 100, "short"):
        keep(cache, REQUEST, replace(REPLY, text=text))
    assert cache._bytes == cache.stats()["bytes"]


def test_old_replies_are_forgotten(db: Database, clock: StillClock) -> None:
    cache = ReplyCache(db, clock, lambda: CacheSettings(max_age_days=1))
    key = keep(cache, REQUEST)
    clock.time += 86_399
    assert cache.get(key)
    clock.time += 2
    assert cache.get(key) is None, "however lately it was used"
    keep(cache, asking("another"))
    assert [row["key"] for row in cache.rows()] != [key]
    assert cache.stats()["replies"] == 1


def test_a_full_disk_fails_no_request(cache: ReplyCache, db: Database) -> None:
    key = keep(cache, REQUEST)
    connection = db.connection()
    connection.pragma("max_page_count", connection.pragma("page_count"))
    other = keep(cache, asking("something else"), replace(REPLY, text="x" * 500_000))
    assert cache.get(other) is None
    assert cache.get(key), "what is there can still be given"
    connection.pragma("max_page_count", 1_000_000)
    keep(cache, asking("something else"), replace(REPLY, text="x" * 500_000))
    assert cache.get(other)
    assert cache._bytes == cache.stats()["bytes"]


def test_a_closed_database_fails_no_request(cache: ReplyCache, db: Database) -> None:
    key = keep(cache, REQUEST)
    db.close()
    assert cache.get(key) is None
    cache.put(key, REQUEST, REPLY)


def test_a_damaged_reply_is_none(cache: ReplyCache, db: Database) -> None:
    key = keep(cache, REQUEST)
    for text in ("nonsense", "[]", '{"text": 3}'):
        db.execute("UPDATE replies SET reply = ?", (text,))
        assert cache.get(key) is None
    keep(cache, REQUEST)
    assert cache.get(key)


def test_clear_and_show(cache: ReplyCache) -> None:
    key = keep(cache, REQUEST)
    keep(cache, asking("two"), replace(REPLY, model="two"))
    assert cache.show(key[:20])["reply"]["text"] == "é\n"
    for wrong in ("", "zz", key[:-1] + ("0" if key[-1] != "0" else "1"), "%"):
        with pytest.raises(NotFound, match="there is no kept reply"):
            cache.show(wrong)
    assert (cache.clear("two"), cache.clear("two")) == (1, 0)
    assert [row["model"] for row in cache.rows()] == ["one"]
    assert cache.clear() == 1
    assert cache.get(key) is None


def test_the_start_of_several_keys(cache: ReplyCache) -> None:
    starts: dict[str, str] = {}
    for number in range(17):  # two of 17 begin with the same hexadecimal digit
        key = keep(cache, asking(str(number)))
        if key[0] in starts:
            with pytest.raises(Conflict, match="several"):
                cache.show(key[0])
            return
        starts[key[0]] = key
    raise AssertionError("unreachable")


def test_threads_use_it_at_once(cache: ReplyCache) -> None:
    wrong: list[str] = []

    def work(number: int) -> None:
        for round_ in range(20):
            text = f"{round_ % 5}"
            key = keep(cache, asking(text), replace(REPLY, text=text))
            found = cache.get(key)
            if found is None or found.text != text:
                wrong.append(f"{number}: {found}")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert cache.stats()["replies"] == 5
    assert cache._bytes == cache.stats()["bytes"]


@pytest.mark.parametrize("settled", [False, True])
def test_what_is_cleared_is_gone_from_the_disk(cache: ReplyCache, db: Database, settled: bool) -> None:
    def found() -> int:
        return sum(file.read_bytes().count(b"very private") for file in db.path.parent.iterdir() if file.is_file())

    key = cache.key(REQUEST, IDENTITY)
    cache.put(key, REQUEST, replace(REPLY, text="very private " * 2000))
    if settled:
        db.empty_log()
    assert found()
    assert cache.clear() == 1
    assert not found()
