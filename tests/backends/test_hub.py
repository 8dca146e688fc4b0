from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping

import pytest

from agentd.backends.download import Patience, Web
from agentd.backends.hub import Selection, select
from agentd.errors import BadInput, DownloadFailed, NotFound
from tests.backends.file_server import FileServer, serving

FILES = {
    "README.md": b"words",
    "Tiny-Q4_K_M.gguf": b"G" * 40,
    "Tiny-Q4_K_S.gguf": b"G" * 30,
    "Tiny-Q8_0.gguf": b"G" * 80,
    "mmproj-Tiny-f16.gguf": b"G" * 10,
    "F16/Tiny-F16-00001-of-00002.gguf": b"G" * 100,
    "F16/Tiny-F16-00002-of-00002.gguf": b"G" * 60,
    "Tiny-F32-00001-of-00003.gguf": b"G",
    "../Tiny-Q2_K.gguf": b"G",
    "-Q2_K.gguf": b"G",
    "\ud800/Tiny-Q3_K.gguf": b"G",
}


@pytest.fixture(scope="module")
def hub() -> Iterator[FileServer]:
    server = FileServer()
    server.add_repository("org/Tiny-GGUF", FILES)
    server.add_repository("org/words", {"README.md": b"words"})
    server.files["/api/models/org/odd/tree/main?recursive=true"] = b'{"error": "no"}'
    with serving(server):
        yield server


def pick(sizes: Mapping[str, int]) -> str:
    return max(sizes, key=lambda name: sizes[name])


def chosen(hub: FileServer, reference: str) -> Selection:
    web = Web(lambda host, port: None, cancel=threading.Event(), patience=Patience(tries=1))
    return select(reference, web, hub.url, pick)


def test_the_choice_is_made_among_models_that_are_whole(hub: FileServer) -> None:
    seen: dict[str, int] = {}

    def look(sizes: Mapping[str, int]) -> str:
        seen.update(sizes)
        return "Tiny-Q8_0.gguf"

    web = Web(lambda host, port: None, cancel=threading.Event())
    found = select("org/Tiny-GGUF", web, hub.url, look)
    assert seen == {
        "Tiny-Q4_K_M.gguf": 40,
        "Tiny-Q4_K_S.gguf": 30,
        "Tiny-Q8_0.gguf": 80,
        "F16/Tiny-F16-00001-of-00002.gguf": 160,
    }
    assert (found.name, found.size, found.origin) == ("Tiny-Q8_0.gguf", 80, "org/Tiny-GGUF/Tiny-Q8_0.gguf")
    (file,) = found.files
    assert file.url == f"{hub.url}/org/Tiny-GGUF/resolve/main/Tiny-Q8_0.gguf"
    assert file.sha256 is not None
    assert len(file.sha256) == 64


def test_all_parts_of_a_split_file(hub: FileServer) -> None:
    found = chosen(hub, "org/Tiny-GGUF:f16")
    assert [file.name for file in found.files] == ["Tiny-F16-00001-of-00002.gguf", "Tiny-F16-00002-of-00002.gguf"]
    assert found.size == 160


@pytest.mark.parametrize(
    ("reference", "name"),
    [
        ("org/Tiny-GGUF:Q4_K_M", "Tiny-Q4_K_M.gguf"),
        ("org/Tiny-GGUF:q4_k_s", "Tiny-Q4_K_S.gguf"),
        ("org/Tiny-GGUF:Tiny-Q8_0.gguf", "Tiny-Q8_0.gguf"),
        ("org/Tiny-GGUF/Tiny-Q8_0.gguf", "Tiny-Q8_0.gguf"),
        ("org/Tiny-GGUF/F16/Tiny-F16-00001-of-00002.gguf", "Tiny-F16-00001-of-00002.gguf"),
        ("org/Tiny-GGUF/Tiny-F16-00001-of-00002.gguf", "Tiny-F16-00001-of-00002.gguf"),
        ("HUB/org/Tiny-GGUF/blob/main/Tiny-Q8_0.gguf", "Tiny-Q8_0.gguf"),
        ("HUB/org/Tiny-GGUF/resolve/main/Tiny-Q8_0.gguf?download=true", "Tiny-Q8_0.gguf"),
        ("HUB/org/Tiny-GGUF", "Tiny-F16-00001-of-00002.gguf"),
        ("https://example.com/models/My-Model_1.Q5_0.gguf?x=1", "My-Model_1.Q5_0.gguf"),
    ],
)
def test_references(hub: FileServer, reference: str, name: str) -> None:
    found = chosen(hub, reference.replace("HUB", hub.url))
    assert found.name == name
    assert (found.files[0].sha256 is None) == reference.startswith("https:")


def test_the_parts_of_an_address(hub: FileServer) -> None:
    found = chosen(hub, "https://example.com/m/Big-00001-of-00003.gguf?x=1")
    assert [file.url for file in found.files] == [
        f"https://example.com/m/Big-0000{number}-of-00003.gguf?x=1" for number in (1, 2, 3)
    ]
    assert found.size is None
    assert found.origin == "https://example.com/m/Big-00001-of-00003.gguf"


@pytest.mark.parametrize(
    ("reference", "error", "words"),
    [
        ("tiny", BadInput, "names no model"),
        ("", BadInput, "names no model"),
        ("org/Tiny-GGUF:", BadInput, "names no model"),
        ("../x:Q4_0", BadInput, "names no model"),
        ("org/Tiny-GGUF/README.md", BadInput, "names no model"),
        ("https://example.com/model.bin", BadInput, "name of a GGUF file"),
        ("https://example.com/%2e%2e%2fx%2f.gguf", BadInput, "name of a GGUF file"),
        ("https://example.com/.hidden.gguf", BadInput, "name of a GGUF file"),
        ("https://example.com/M-00001-of-99999.gguf", BadInput, "no part of a file"),
        ("https://[::1/m.gguf", BadInput, "is no address"),
        ("https://me:secret@example.com/m.gguf", BadInput, "password"),
        ("org/none", NotFound, "there is no repository org/none"),
        ("org/words", NotFound, "has no GGUF file"),
        ("org/Tiny-GGUF:Q5_0", NotFound, "Tiny-Q4_K_M.gguf"),
        ("org/Tiny-GGUF:Tiny", BadInput, "could be"),
        ("org/Tiny-GGUF/Other.gguf", NotFound, "there are"),
        ("org/odd", DownloadFailed, "does not answer as a hub"),
    ],
)
def test_what_names_nothing(hub: FileServer, reference: str, error: type[Exception], words: str) -> None:
    with pytest.raises(error) as caught:
        chosen(hub, reference)
    assert words in str(caught.value)


def test_a_list_on_several_pages() -> None:
    first, second = FileServer(), FileServer()
    first.add_repository("org/m", {"a-Q4_0.gguf": b"GG"})
    second.add_repository("org/m", {"b-Q8_0.gguf": b"GGGG"})
    page = "/api/models/org/m/tree/main?recursive=true"
    first.files[f"{page}&cursor=2"] = second.files[page]
    first.headers = {"Link": f'<{page}&cursor=2>; rel="next"'}
    with serving(first):
        assert chosen(first, "org/m").name == "b-Q8_0.gguf"
