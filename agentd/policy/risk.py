"""How much can go wrong, 0 to 100, of a plan, a step and a change: sums of the weights below, each with its reason."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field

from agentd.policy.places import builds, builds_on_servers, is_test, makes_programs_run
from agentd.security.scan import scan
from agentd.types import Action, Decision, FileChange, Plan, Risk

WEIGHTS = {
    # what a plan speaks of
    "deletes": 20,
    "reaches far": 10,
    "restructures": 10,
    "touches what keeps others out, or data of others": 20,
    "fetches or installs": 15,
    "publishes": 25,
    "has steps and no check": 10,
    # where something is changed
    "build files": 15,
    "builds on servers": 35,
    "files that start programs": 20,
    "tests": 10,
    # what a change does
    "deletes tests, or more of them than it adds": 20,
    "files that are no text": 10,
    "secrets": 60,
    "network": 15,
    "new permissions": 20,
}
"""Counted once, however often it is met."""
STEP, MOST_STEPS = 4, 24
"""Each step of a plan after the first, and all of them together."""
FILE, MOST_FILES = 2, 20
"""Each file after the first, and all of them together."""
DELETED, MOST_DELETED = 10, 40
"""Each file that a change deletes, and all of them together."""
SIZES = ((2000, 30), (500, 20), (100, 10))
"""Lines that a change adds and removes, from so many on, and what they weigh."""

_SPOKEN = (
    ("deletes", r"delet\w*|remov\w*|drop\w*|purg\w*|eras\w*|wip(?:e|es|ing)|prun\w*|get rid of|throw away|clean up"),
    ("reaches far", r"all|every|everywhere|everything|whole|entire|across|throughout"),
    ("restructures", r"refactor\w*|rewrit\w*|migrat\w*|restructur\w*|renam\w*|upgrad\w*|port to"),
    (
        "touches what keeps others out, or data of others",
        r"auth\w*|login|passw\w*|tokens?|secrets?|crypt\w*|encrypt\w*|permissions?|payments?|billing|databases?|schemas?"
        r"|production|personal data",
    ),
    ("fetches or installs", r"install\w*|download\w*|upload\w*|fetch\w*|network|https?|webhooks?|dependenc\w+"),
    ("publishes", r"publish\w*|deploy\w*|releas\w*|push(?:es)?"),
)
_WORDS = tuple((weight, re.compile(rf"\b(?:{words})\b", re.IGNORECASE)) for weight, words in _SPOKEN)
_PATHS = re.compile(
    r"(?<![\w./-])(?:[\w.-]{1,100}/){0,20}(?:[\w-]{0,100}\.[A-Za-z][\w.-]{0,50}|Makefile|Dockerfile|Jenkinsfile)"
)
_NETWORK = re.compile(
    r"\b(?:urllib|requests|httpx2?|aiohttp|socket|http\.client|XMLHttpRequest|axios|net/http|reqwest|curl|wget)\b"
    r"|\bfetch\(|https?://"
)
_PERMISSIONS = re.compile(
    r"\b(?:chmod|chown|setuid|sudo|setcap|permissions?:|allowPrivilegeEscalation|privileged:|0o?777)", re.IGNORECASE
)
_PLACES: tuple[tuple[str, Callable[[str], bool]], ...] = (
    ("builds on servers", builds_on_servers),
    ("files that start programs", makes_programs_run),
    ("build files", builds),
    ("tests", is_test),
)
_CHANGING = ("fs.write", "fs.delete")


@dataclass(slots=True)
class _Sum:
    score: int = 0
    reasons: list[str] = field(default_factory=list)

    def add(self, points: int, reason: str) -> None:
        if points:
            self.score += points
            self.reasons.append(f"{reason}: {points}")

    def weigh(self, weight: str, met: Iterable[str]) -> None:
        """A weight of the table, with what it was met at."""
        shown = list(dict.fromkeys(met))
        if shown:
            more = f" and {len(shown) - 3} more" if len(shown) > 3 else ""
            self.add(WEIGHTS[weight], f"{weight} ({', '.join(word[:80] for word in shown[:3])}{more})")

    def places(self, paths: Collection[str]) -> None:
        """What kind of files these are; of several kinds of one file the heaviest counts."""
        kinds = {path: next((kind for kind, fits in _PLACES if fits(path)), "") for path in paths}
        for kind, _ in _PLACES:
            self.weigh(kind, (path for path, its in kinds.items() if its == kind))
        self.add(min(MOST_FILES, FILE * (len(paths) - 1)) if len(paths) > 1 else 0, f"{len(paths)} files")

    def risk(self) -> Risk:
        return Risk(score=min(100, self.score), reasons=tuple(self.reasons))


def risk_of_plan(goal: str, plan: Plan) -> Risk:
    """By what the goal and the steps speak of; before anything is done there is nothing else to go by."""
    total = _Sum()
    text = "\n".join([goal, *(step.intent for step in plan.steps)])
    for weight, words in _WORDS:
        total.weigh(weight, (match[0].casefold() for match in words.finditer(text)))
    total.places(list(dict.fromkeys(match[0] for match in _PATHS.finditer(text))))
    steps = len(plan.steps)
    total.add(min(MOST_STEPS, STEP * (steps - 1)), f"{steps} steps")
    if steps > 1 and not any(step.checks for step in plan.steps):
        total.add(WEIGHTS["has steps and no check"], "has steps and no check")
    return total.risk()


def risk_of_actions(
    decided: Sequence[tuple[Action, Decision]], shown: Callable[[Action], str] = lambda action: str(action)[:200]
) -> Risk:
    """Of one call: the highest risk that a rule gives to what it touches, and what that is, as it may be `shown`."""
    total = _Sum()
    if not decided:
        return total.risk()
    action, decision = max(decided, key=lambda pair: pair[1].risk)
    total.add(decision.risk, f"{shown(action)} ({decision.rule})")
    changed = list(dict.fromkeys(action.target for action, _ in decided if action.kind in _CHANGING))
    total.places(changed)
    total.weigh("network", (action.target for action, _ in decided if action.kind == "net.connect"))
    return total.risk()


def risk_of_changes(changes: Sequence[FileChange], known: Collection[str] = ()) -> Risk:
    """Of what was changed, as it stands there. `known`: values that are secret in any form."""
    total = _Sum()
    total.places([change.path for change in changes])
    deleted = [change for change in changes if change.kind == "deleted"]
    total.add(min(MOST_DELETED, DELETED * len(deleted)), f"{len(deleted)} files deleted")
    lines = sum(change.added + change.removed for change in changes)
    total.add(next((points for least, points in SIZES if lines >= least), 0), f"{lines} lines")
    total.weigh(
        "deletes tests, or more of them than it adds", (c.path for c in changes if is_test(c.path) and _less(c))
    )
    total.weigh("files that are no text", (c.path for c in changes if not c.diff and c.kind in ("added", "changed")))
    added = {change.path: _added(change.diff) for change in changes}
    total.weigh("secrets", (path for path, text in added.items() if scan(text, known)))
    total.weigh("network", (path for path, text in added.items() if _NETWORK.search(text)))
    permitted = [path for path, text in added.items() if _PERMISSIONS.search(text)]
    total.weigh("new permissions", [*(change.path for change in changes if change.kind == "mode"), *permitted])
    return total.risk()


def _less(change: FileChange) -> bool:
    return change.kind == "deleted" or change.removed > change.added


def _added(diff: str) -> str:
    """The lines that a unified diff adds."""
    lines = diff.splitlines()
    return "\n".join(line[1:] for line in lines if line.startswith("+") and not line.startswith("+++ "))
