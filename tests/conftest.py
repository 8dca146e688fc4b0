"""What every test needs: no settings of the person who runs them, and a home of its own."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import hypothesis
import pytest

from agentd.config import init_home
from agentd.home import defaults_dir
from agentd.policy.engine import PolicyEngine

hypothesis.settings.register_profile("agentd", deadline=None)  # a busy machine is no fault
hypothesis.settings.load_profile("agentd")

for name in [name for name in os.environ if name.startswith("AGENTD_")]:
    del os.environ[name]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A fresh home with the default policies and models."""
    folder = tmp_path / "home"
    init_home(folder)
    return folder


@pytest.fixture(scope="session")
def policy() -> PolicyEngine:
    """The rules of a new home; reading them takes longer than most tests."""
    return PolicyEngine.load(defaults_dir() / "policies")


@pytest.fixture(scope="session")
def kept(pytestconfig: pytest.Config) -> Path:
    """A folder for components of WebAssembly that stays; `Component` looks at what everything in it was made of."""
    return Path(str(pytestconfig.cache.mkdir("wasm")))  # type: ignore[union-attr]


def pytest_collection_finish() -> None:
    """Thousands of tests are there now, and stay: the garbage collector need not look through them again and again."""
    gc.collect()
    gc.freeze()
