"""The registry: what is installed stays as it was signed, and lives by how it does."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from agentd.errors import Conflict, NotFound, PluginRefused
from agentd.plugins.folder import CODE, SIGNATURE
from agentd.plugins.registry import DAY, Registry
from agentd.plugins.spec import Manifest
from agentd.plugins.standing import State, judged, lower_bound
from tests.plugins.conftest import ADD, House, adding, contents


def states(registry: Registry, name: str = "add") -> dict[int, State]:
    return {plugin.version: plugin.state for plugin in registry.all(name)}


# coming ---------------------------------------------------------------------------------------------------------------


def test_an_installed_plugin_is_provisional_and_told(house: House) -> None:
    plugin = house.install()
    assert (plugin.name, plugin.version, plugin.state, plugin.active) == ("add", 1, State.PROVISIONAL, True)
    assert house.registry.load(plugin).code == ADD
    (record,) = house.records("plugin.installed")
    assert record.data["digest"] == plugin.digest
    assert record.data["evidence"]["author"] == "agent"
    assert [told["plugin"] for told in house.told("PluginInstalled")] == ["add"]


def test_a_version_is_entered_once(house: House) -> None:
    house.install()
    with pytest.raises(Conflict, match="add 1"):
        house.registry.install(Manifest(version=1, spec=adding()), contents())
    assert house.install().version == 2


def test_names_that_are_not_there(house: House) -> None:
    house.install()
    with pytest.raises(NotFound) as caught:
        house.registry.get("ad")
    assert "'add'" in caught.value.hint
    with pytest.raises(NotFound, match="no version 7"):
        house.registry.get("add", 7)


def test_a_folder_without_a_row_is_told_and_not_loaded(house: House) -> None:
    """The crash between the folder and its row; the next try takes the same place."""
    house.folder.write(Manifest(version=1, spec=adding()), contents("half"), first=True)
    again = house.opened()
    assert ["never installed" in fault.problem for fault in again.recover()] == [True]
    assert again.all() == []
    assert house.registry.load(house.install()).code == ADD
    assert again.recover() == []


def test_no_row_stands_when_the_folder_cannot_be_written(house: House) -> None:
    house.home.mkdir(exist_ok=True)
    (house.home / "plugins_generated").write_text("a file")
    with pytest.raises(OSError, match="plugins_generated"):
        house.install()
    assert house.registry.all() == []


# life -----------------------------------------------------------------------------------------------------------------


def test_the_bound_is_wilson_s() -> None:
    assert lower_bound(0, 0) == 0
    assert lower_bound(8, 2) == pytest.approx(0.4902, abs=1e-4)
    assert lower_bound(16, 0) > 0.8 > lower_bound(15, 0)


def test_trust_takes_sixteen_successes(house: House) -> None:
    plugin = house.install()
    for n in range(16):
        assert states(house.registry)[1] is State.PROVISIONAL, n
        house.registry.count(plugin, True, model="small", task="t1")
    assert states(house.registry)[1] is State.TRUSTED
    (record,) = house.records("plugin.judged")
    assert (record.task, record.data["to"]) == ("t1", "trusted")
    assert house.told("PluginJudged")[0]["reason"] == "16 of 16 calls succeeded"


def test_three_failures_in_a_row_demote_even_a_trusted_one(house: House) -> None:
    plugin = house.install()
    for ok in [True] * 20 + [False, False, True, False, False]:
        house.registry.count(plugin, ok)
    assert states(house.registry)[1] is State.TRUSTED
    house.registry.count(plugin, False)
    found = house.registry.get("add", 1)
    assert (found.state, found.reason, found.active) == (State.DEMOTED, "it failed 3 times in a row", False)


def test_a_bad_share_demotes(house: House) -> None:
    assert judged(State.PROVISIONAL, 8, 4, 1)[0] is State.PROVISIONAL
    assert judged(State.PROVISIONAL, 10, 5, 1)[0] is State.DEMOTED
    assert judged(State.PROVISIONAL, 30, 5, 1)[0] is State.PROVISIONAL
    assert judged(State.QUARANTINED, 100, 0, 0)[0] is State.QUARANTINED


def test_calls_are_counted_by_model(house: House) -> None:
    plugin = house.install()
    for model, ok in (("a", True), ("a", False), ("b", True), ("", True)):
        house.registry.count(plugin, ok, model=model)
    assert [(each.model, each.successes, each.failures) for each in house.registry.models(plugin)] == [
        ("", 1, 0),
        ("a", 1, 1),
        ("b", 1, 0),
    ]


def test_the_newest_that_works_is_called(house: House) -> None:
    for _ in range(3):
        house.install()
    assert house.registry.get("add").version == 3
    house.registry.demote("add")
    assert house.registry.get("add").version == 2
    house.registry.quarantine(house.registry.get("add"), "it is odd")
    assert house.registry.get("add").version == 1
    house.registry.demote("add")
    assert house.registry.active() == []
    assert house.registry.get("add").version == 3


def test_a_person_may_go_back_and_stays_there(house: House) -> None:
    for _ in range(3):
        house.install()
    assert house.registry.roll_back("add").version == 2
    house.install()
    assert house.registry.get("add").version == 2, "the agent's next version does not overrule a person"
    assert house.registry.roll_back("add", 4).version == 4
    house.registry.roll_back("add", 1)
    with pytest.raises(Conflict, match="no version before 1"):
        house.registry.roll_back("add")
    house.install(author="person")
    assert house.registry.get("add").version == 5
    house.registry.demote("add", 1)
    with pytest.raises(Conflict, match="add 1 is demoted"):
        house.registry.roll_back("add", 1)
    assert [told["version"] for told in house.told("PluginRolledBack")] == [2, 4, 1]


def test_a_demoted_one_begins_anew_when_a_person_trusts_it(house: House) -> None:
    plugin = house.install()
    for _ in range(3):
        house.registry.count(plugin, False)
    assert house.registry.trust("add").state is State.TRUSTED
    house.registry.count(plugin, False)
    assert states(house.registry)[1] is State.TRUSTED


def test_what_nobody_uses_is_put_away_with_all_its_versions(house: House) -> None:
    for _ in range(2):
        house.install()
    used = house.install(adding("used"))
    house.clock.time += 91 * DAY
    house.registry.count(used, True)
    assert {plugin.name for plugin in house.registry.archive_unused(90)} == {"add"}
    assert states(house.registry) == {1: State.ARCHIVED, 2: State.ARCHIVED}
    assert [plugin.name for plugin in house.registry.active()] == ["used"]
    assert house.registry.trust("add").active
    assert house.registry.archive_unused(90) == []


def test_a_removed_plugin_is_gone(house: House) -> None:
    house.install()
    plugin = house.install()
    house.registry.count(plugin, True)
    house.registry.roll_back("add")
    house.registry.remove("add", 1)
    assert house.registry.get("add").version == 2
    house.registry.remove("add")
    assert (house.registry.all(), house.folder.found()) == ([], [])
    house.registry.count(plugin, False)  # a call that was on its way
    assert [record.data["version"] for record in house.records("plugin.removed")] == [1, 2]
    with pytest.raises(NotFound):
        house.registry.remove("add")


# integrity ------------------------------------------------------------------------------------------------------------


def _edit(place: Path) -> None:
    (place / CODE).write_text(ADD.replace("+", "-"))


def _unsign(place: Path) -> None:
    (place / SIGNATURE).unlink()


def _lose(place: Path) -> None:
    shutil.rmtree(place)


@pytest.mark.parametrize("harm", [_edit, _unsign, _lose])
@pytest.mark.parametrize("when", ["load", "recover", "verify"])
def test_what_was_tampered_with_is_quarantined(house: House, harm: Callable[[Path], None], when: str) -> None:
    plugin = house.install()
    harm(house.folder.place("add", 1))
    registry = house.opened()
    if when == "load":
        with pytest.raises(PluginRefused, match="add/1"):
            registry.load(plugin)
    else:
        (fault,) = registry.recover() if when == "recover" else registry.verify("add")
        assert fault.plugin == "add 1"
    found = registry.get("add")
    assert (found.state, found.active) == (State.QUARANTINED, False)
    assert "add/1" in found.reason
    with pytest.raises(PluginRefused):
        registry.trust("add")


def test_an_older_plugin_that_was_signed_here_is_no_other(house: House, tmp_path: Path) -> None:
    """Signed once, taken away, and put back by hand in place of the new one."""
    house.install(code=ADD.replace("+", "-"))
    shutil.copytree(house.folder.place("add", 1), tmp_path / "old")
    house.registry.remove("add")
    plugin = house.install()
    shutil.rmtree(house.folder.place("add", 1))
    shutil.copytree(tmp_path / "old", house.folder.place("add", 1))
    with pytest.raises(PluginRefused, match="another than was installed"):
        house.registry.load(plugin)


def test_a_mended_one_comes_back_by_a_person_alone(house: House) -> None:
    plugin = house.install()
    _edit(house.folder.place("add", 1))
    house.registry.verify()
    (house.folder.place("add", 1) / CODE).write_text(ADD)
    assert house.registry.verify() == []
    assert states(house.registry)[1] is State.QUARANTINED
    assert house.registry.trust("add").active
    assert house.registry.load(plugin).code == ADD


def test_without_the_key_nothing_is_believed_and_nothing_condemned(house: House) -> None:
    house.install()
    (house.home / "state" / "plugins.key").unlink()
    (fault,) = house.registry.recover()
    assert "key" in fault.problem
    assert states(house.registry)[1] is State.PROVISIONAL


def test_who_listens_hears_of_every_change(house: House) -> None:
    heard: list[int] = []
    house.registry.changed.append(lambda: heard.append(len(house.registry.active())))
    plugin = house.install()
    house.registry.count(plugin, True)
    house.registry.demote("add")
    house.registry.remove("add")
    assert heard == [1, 0, 0]
