"""A worker with four places that the tests of this folder share, with the included model in its quick format."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.backends.llama.worker_client import Frame, WorkerClient


@pytest.fixture(scope="session")
def spec(gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Frame:
    """How the worker loads: the fields of its first frame."""
    cache = tmp_path_factory.mktemp("requantised")
    return {
        "path": str(gguf),
        "context": 1024,
        "sequences": 4,
        "threads": 1,
        "gpu_layers": 0,
        "requantise": "Q4_0",
        "cache": str(cache),
    }


@pytest.fixture(scope="session")
def worker(spec: Frame) -> Iterator[WorkerClient]:
    with WorkerClient(spec) as client:
        yield client
