"""The model that comes with agentd, in a process that all tests of this folder share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from agentd.backends.catalog import Catalog
from agentd.backends.llama_cpp import LlamaModel
from agentd.home import defaults_dir
from agentd.types import ModelProfile

PROFILE = ModelProfile(context=4096, compact=True)


@pytest.fixture(scope="session")
def gguf() -> Path:
    folder = defaults_dir() / "models"
    path = Catalog.load(folder, folder).entry("smollm2-135m").available
    assert path is not None, "the extra `embedded` is not installed"
    return path


@pytest.fixture(scope="session")
def model(gguf: Path) -> Iterator[LlamaModel]:
    model = LlamaModel(gguf, name="smollm2", profile=PROFILE)
    yield model
    model.stop()


@pytest.fixture
def own_model(gguf: Path) -> Iterator[LlamaModel]:
    """A process that the test may break."""
    model = LlamaModel(gguf, name="smollm2", profile=ModelProfile(context=1024, compact=True), stall=5.0)
    yield model
    model.stop()
