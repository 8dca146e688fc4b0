"""A plugin's folder: whole or not there, and believed only exactly as it was signed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from agentd.errors import BadInput, PluginRefused
from agentd.plugins.folder import CODE, GUIDE, MANIFEST, MOST_BYTES, SIGNATURE, TESTS, PluginFolder
from agentd.plugins.spec import Manifest
from agentd.security.signing import Signer
from tests.plugins.conftest import ADD, House, adding, contents

FILES = (CODE, TESTS, GUIDE, MANIFEST, SIGNATURE)


@pytest.fixture
def place(house: House) -> Path:
    house.folder.write(Manifest(version=1, spec=adding()), contents(), first=True)
    return house.folder.place("add", 1)


def test_what_was_written_is_read(house: House, place: Path) -> None:
    package = house.folder.read("add", 1)
    assert package.code == ADD
    assert package.manifest.spec == adding()
    assert {entry.name for entry in place.iterdir()} == set(FILES)
    assert house.folder.found() == [("add", 1)]


def _link(file: Path) -> None:
    elsewhere = file.parents[3] / "same"
    elsewhere.write_bytes(file.read_bytes())
    file.unlink()
    file.symlink_to(elsewhere)


def _pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def _folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    "harm",
    [
        lambda file: file.write_bytes(file.read_bytes() + b" \n#"),
        lambda file: file.write_bytes(b""),
        lambda file: file.write_bytes(b"\xff" * (MOST_BYTES[file.name] + 1)),
        lambda file: file.unlink(),
        _link,
        _pipe,
        _folder,
    ],
)
def test_any_change_of_a_file_is_refused_by_its_name(
    house: House, place: Path, name: str, harm: Callable[[Path], object]
) -> None:
    harm(place / name)
    with pytest.raises(PluginRefused) as caught:
        house.folder.read("add", 1)
    assert f"add/1/{name}" in caught.value.message


@pytest.mark.parametrize("harm", [_link, _pipe, _folder])
def test_only_a_file_is_a_file(house: House, place: Path, harm: Callable[[Path], object]) -> None:
    harm(place / GUIDE)
    with pytest.raises(PluginRefused, match=r"add/1/GUIDE\.md is a link or no file"):
        house.folder.read("add", 1)


@pytest.mark.parametrize("more", ["conftest.py", ".hidden", "__pycache__"])
def test_what_does_not_belong_is_refused(house: House, place: Path, more: str) -> None:
    (place / more).mkdir()
    with pytest.raises(PluginRefused, match=f"add/1/{more}"):
        house.folder.read("add", 1)


def test_a_folder_that_is_a_link_is_refused(house: House, place: Path, tmp_path: Path) -> None:
    os.rename(place, tmp_path / "moved")
    place.symlink_to(tmp_path / "moved")
    with pytest.raises(PluginRefused, match="a link"):
        house.folder.read("add", 1)


def test_a_version_in_the_place_of_another_is_refused(house: House, place: Path) -> None:
    os.rename(place, place.with_name("2"))
    with pytest.raises(PluginRefused, match="is that of add 1"):
        house.folder.read("add", 2)


def test_the_signature_of_another_home_counts_nothing(house: House, place: Path, tmp_path: Path) -> None:
    strange = PluginFolder(tmp_path / "strange", Signer(tmp_path / "strange.key"))
    strange.write(Manifest(version=1, spec=adding()), contents(ADD.replace("+", "-")), first=True)
    for name in FILES:
        (place / name).write_bytes((strange.place("add", 1) / name).read_bytes())
    with pytest.raises(PluginRefused, match="not what this home has signed"):
        house.folder.read("add", 1)


@pytest.mark.parametrize(
    "files",
    [{}, {CODE: b""}, contents() | {"more": b""}, contents() | {CODE: b"#" * (MOST_BYTES[CODE] + 1)}],
)
def test_other_contents_are_not_taken(house: House, files: dict[str, bytes]) -> None:
    with pytest.raises(BadInput):
        house.folder.write(Manifest(version=1, spec=adding()), files, first=True)
    assert house.folder.found() == []


def test_what_a_crash_left_is_swept(house: House, place: Path) -> None:
    half = place.parents[1] / ".new-other-1"
    half.mkdir()
    (half / CODE).write_text("half")
    assert house.folder.found() == [("add", 1)]
    house.folder.sweep()
    assert [entry.name for entry in place.parents[1].iterdir()] == ["add"]


def test_a_removed_plugin_leaves_nothing(house: House, place: Path) -> None:
    house.folder.remove("add", 1)
    house.folder.remove("add", 1)
    assert list(place.parents[1].iterdir()) == []
