"""What the plugins are worth together: which are used again, which say the same, which became worse, which are dead."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from agentd.plugins.registry import DAY, Plugin
from agentd.plugins.spec import Spec
from agentd.plugins.standing import State

ALIKE = 0.6
"""Share of their words that two plugins have in common from which they count as near-duplicates."""
DEAD_AFTER = 30 * DAY
_WORD = re.compile(r"[a-z]{3,}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    plugins: int
    reuse_rate: float
    """Share of the plugins in use that were called more than once."""
    redundant: tuple[tuple[str, str], ...]
    """Pairs that describe nearly the same."""
    regressions: tuple[str, ...]
    """Newest versions that were taken out of use while an older one works."""
    dead: tuple[str, ...]
    """In use, and not called for a month."""


def health(plugins: Sequence[Plugin], calls: Mapping[str, int], now: float) -> Health:
    """Of all versions; `calls` by the name of the plugin, `now` in Unix seconds."""
    active = [plugin for plugin in plugins if plugin.active]
    words = {plugin.name: words_of(plugin.spec) for plugin in active}
    newest = {plugin.name: plugin for plugin in sorted(plugins, key=lambda plugin: plugin.version)}
    worse = (State.DEMOTED, State.QUARANTINED)
    return Health(
        plugins=len(active),
        reuse_rate=round(sum(calls.get(plugin.name, 0) > 1 for plugin in active) / len(active), 3) if active else 0.0,
        redundant=tuple(
            (one, other) for one, other in combinations(sorted(words), 2) if alike(words[one], words[other]) >= ALIKE
        ),
        regressions=tuple(str(newest[plugin.name]) for plugin in active if newest[plugin.name].state in worse),
        dead=tuple(plugin.name for plugin in active if (plugin.used or plugin.created) < now - DEAD_AFTER),
    )


def words_of(spec: Spec) -> frozenset[str]:
    """The words by which a spec says what it is for."""
    text = " ".join((spec.name.replace("_", " "), spec.purpose, *spec.requests))
    return frozenset(_WORD.findall(text.lower()))


def alike(one: frozenset[str], other: frozenset[str]) -> float:
    """The share of all words that both have."""
    return len(one & other) / len(one | other) if one | other else 0.0
