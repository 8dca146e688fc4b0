"""What the reference says of addresses is there, and all of it."""

from __future__ import annotations

import re
from pathlib import Path

from tests.api.conftest import Served

REFERENCE = Path(__file__).resolve().parents[2] / "docs" / "reference"


def test_every_address_stands_in_the_reference(served: Served) -> None:
    text = "".join((REFERENCE / page).read_text(encoding="utf-8") for page in ("http.md", "openai.md"))
    there = {re.sub(r"\{\w+\}", "{}", path) for path in served.api.openapi()["paths"]} | {"/ws/completions"}
    said = {re.sub(r"\{\w+\}", "{}", path) for path in re.findall(r"`(?:[A-Z]+ )?(/[\w/{}-]+)(?:\?[^`]*)?`", text)}
    assert there <= said, f"not in the reference: {', '.join(sorted(there - said))}"
    parts = {"/".join(path.split("/")[:end]) for path in there for end in range(2, path.count("/") + 2)}
    assert said <= there | parts | {"/openapi.json"}, f"not there: {', '.join(sorted(said - there - parts))}"
