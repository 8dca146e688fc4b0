"""What waits for a person: each request covers exactly what was shown, is answered once, used once, and expires."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from agentd.errors import BadInput, Conflict, NeedsApproval, NotFound
from agentd.events import EventKind
from agentd.security.scan import redact
from agentd.store.audit import Audit
from agentd.store.db import Database
from agentd.types import Clock, Emit, JsonObject

MAX_SHOWN = 1_000_000
"""Characters of what a person is shown; of more, the two ends and the hash of all of it."""
MAX_WORDS = 10_000
"""Characters of an answer."""

_OPEN = """
    INSERT INTO approvals (task, key, step, kind, state, digest, tool, actions, shown, hunks, rule, because, risk,
                           asked, expires)
    VALUES (?1, ?2, (SELECT max(number) FROM steps WHERE task = ?1 AND state = 'running'), ?3, 'open', ?4, ?5, ?6, ?7,
            ?8, ?9, ?10, ?11, ?12, ?13)"""

# The last word on this very call; a no to the same call elsewhere in the task counts too.
_STANDING = """
    SELECT * FROM approvals WHERE task = ?1 AND (
        (key = ?2 AND state = 'rejected') OR (digest = ?3 AND state = 'rejected' AND kind = 'call')
        OR (key = ?2 AND digest = ?3 AND (state = 'used' OR (state = 'approved' AND expires > ?4))))
    ORDER BY id DESC LIMIT 1"""

_ANSWER = """
    UPDATE approvals SET state = ?2, answered = ?3, answerer = ?4, words = ?5, chosen = ?6, expires = ?7
    WHERE id = ?1 AND state = 'open'"""


class Kind(StrEnum):
    CALL = "call"
    PLAN = "plan"
    QUESTION = "question"


class State(StrEnum):
    OPEN = "open"
    APPROVED = "approved"
    """Also of a question that was answered."""
    REJECTED = "rejected"
    EXPIRED = "expired"
    """Nobody answered in time, something else has to be asked by now, or the task has ended."""
    USED = "used"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a person is to decide. `digest` names it to the byte, secrets too, which they are not shown; `hunks` says
    how many parts can be chosen from."""

    task: str
    key: str
    """The place in the task's journal: the same after a crash."""
    kind: Kind
    digest: str
    shown: str
    tool: str = ""
    actions: tuple[str, ...] = ()
    hunks: int = 0
    rule: str = ""
    because: str = ""
    risk: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """A request and what became of it. `words` are the answer, or why it was rejected; `chosen` are hunks, from 1."""

    id: int
    task: str
    key: str
    step: int | None
    kind: Kind
    state: State
    digest: str
    tool: str
    actions: tuple[str, ...]
    shown: str
    hunks: int
    rule: str
    because: str
    risk: int
    asked: float
    expires: float
    answered: float | None
    answerer: str
    words: str
    chosen: tuple[int, ...] | None


def digest_of(what: JsonObject) -> str:
    """SHA-256 of canonical JSON."""
    text = json.dumps(dict(what), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def plan_asked(task: str, text: str, *, because: str, risk: int = 0, rule: str = "council", key: str = "plan") -> Asked:
    """A question about a plan, which is not yet a call of any tool."""
    digest = digest_of({"plan": text, "because": because})
    return Asked(task=task, key=key, kind=Kind.PLAN, digest=digest, shown=text, rule=rule, because=because, risk=risk)


def question_asked(task: str, key: str, question: str) -> Asked:
    """A question in a model's own words."""
    return Asked(task=task, key=key, kind=Kind.QUESTION, digest=digest_of({"question": question}), shown=question)


class Approvals:
    """The requests of all tasks in one database; any thread may call any method."""

    def __init__(
        self,
        db: Database,
        audit: Audit,
        emit: Emit,
        clock: Clock,
        *,
        hours: Callable[[], float] = lambda: 24.0,
        redact: Callable[[str], str] = redact,
    ) -> None:
        self._redact = redact
        self._db = db
        self._audit = audit
        self._emit = emit
        self._clock = clock
        self._hours = hours

    # who asks --------------------------------------------------------------------------------------------------------

    def demand(self, asked: Asked) -> Approval:
        """The answer to a plan or question, an approved one taken as used; `NeedsApproval` until there is one."""
        answer = self.standing(asked)
        if answer is None:
            waiting = NeedsApproval(f"{asked.kind} needs a person: {asked.because or asked.shown}"[:1000])
            waiting.request = self.open(asked).id
            raise waiting
        if answer.state is State.APPROVED:
            self.use(answer)
        return answer

    def standing(self, asked: Asked) -> Approval | None:
        """The answer that counts: a yes to exactly this, or a no to the same call. What is outdated does not."""
        row = self._db.row(_STANDING, (asked.task, asked.key, asked.digest, self._clock.now()))
        return _approval(row) if row else None

    def open(self, asked: Asked) -> Approval:
        """Ask: the request that is open for exactly this already, or a new one in the place of any other."""
        now = self._clock.now()
        with self._db.transaction() as connection:
            row = self._db.row("SELECT * FROM approvals WHERE task = ? AND state = 'open'", (asked.task,))
            if row and (row["key"], row["digest"]) == (asked.key, asked.digest) and row["expires"] > now:
                return _approval(row)
            self._close(asked.task, "something else is asked now", key=asked.key)
            actions = json.dumps([self._redact(action) for action in asked.actions])
            what = (asked.task, asked.key, asked.kind, asked.digest, asked.tool, actions)
            shown, because = _cut(self._redact(asked.shown)), self._redact(asked.because)
            why = (shown, asked.hunks, asked.rule, because, asked.risk)
            self._db.execute(_OPEN, (*what, *why, now, now + self._hours() * 3600))
            made = self.get(connection.last_insert_rowid())
            told = {"request": made.id, "kind": made.kind, "key": made.key, "tool": made.tool, "sha256": made.digest}
            told |= {"actions": [action[:200] for action in made.actions], "rule": made.rule, "risk": made.risk}
            self._audit.record("approval.asked", made.task, told | {"expires": made.expires})
            self._emit(EventKind.APPROVAL_ASKED, made.task, told | {"because": made.because})
        return made

    def use(self, approval: Approval) -> None:
        """Take a yes, in the transaction of what it is taken for."""
        with self._db.transaction():
            self._db.execute("UPDATE approvals SET state = 'used' WHERE id = ? AND state = 'approved'", (approval.id,))
            self._audit.record("approval.used", approval.task, {"request": approval.id, "sha256": approval.digest})

    # who answers -----------------------------------------------------------------------------------------------------

    def get(self, request: int) -> Approval:
        row = self._db.row("SELECT * FROM approvals WHERE id = ?", (request,))
        if row is None:
            raise NotFound(f"there is no request {request}", hint="`agentd inbox` lists what waits")
        return _approval(row)

    def of(self, task: str) -> list[Approval]:
        """All that a task has asked, the oldest first."""
        return [_approval(row) for row in self._db.rows("SELECT * FROM approvals WHERE task = ? ORDER BY id", (task,))]

    def pending(self) -> dict[str, Approval]:
        """What is open, by task; also what has expired."""
        return {row["task"]: _approval(row) for row in self._db.rows("SELECT * FROM approvals WHERE state = 'open'")}

    def is_open(self, request: int) -> bool:
        return self._db.row("SELECT 1 FROM approvals WHERE id = ? AND state = 'open'", (request,)) is not None

    def expired(self, approval: Approval) -> bool:
        return approval.expires <= self._clock.now()

    def answer(
        self, approval: Approval, state: State, *, by: str, words: str = "", chosen: Sequence[int] | None = None
    ) -> None:
        """Answer an open request. `Conflict` when somebody else was faster; a yes lives as long again as a request."""
        if len(words) > MAX_WORDS:
            raise BadInput(f"the answer has {len(words):,} characters; the most is {MAX_WORDS:,}")
        picked = _picked(approval, chosen) if chosen is not None else None
        words, now = self._redact(words), self._clock.now()
        with self._db.transaction() as connection:
            values = (approval.id, state, now, by, words, json.dumps(picked) if picked is not None else None)
            self._db.execute(_ANSWER, (*values, now + self._hours() * 3600))
            if connection.changes() != 1:
                raise self.taken(self.get(approval.id))
            told = {"request": approval.id, "state": state, "by": by[:200], "sha256": approval.digest}
            told |= {"hunks": picked} if picked is not None else {}
            digest = hashlib.sha256(words.encode("utf-8", "backslashreplace")).hexdigest()
            self._audit.record("approval.answered", approval.task, told | ({"words_sha256": digest} if words else {}))
            self._emit(EventKind.APPROVAL_ANSWERED, approval.task, told | ({"words": words[:500]} if words else {}))

    def taken(self, approval: Approval) -> Conflict:
        """What to say to somebody who comes too late."""
        who = f" by {approval.answerer}" if approval.answerer else ""
        return Conflict(
            f"request {approval.id} of task {approval.task} is {approval.state} already{who}",
            hint="`agentd inbox` lists what waits now",
        )

    def close(self, task: str, why: str) -> None:
        """The task will use nothing more of what it asked."""
        with self._db.transaction():
            self._close(task, why)

    def _close(self, task: str, why: str, key: str | None = None) -> None:
        """Expire what is open, and what was approved and not used (`key`: there)."""
        rows = self._db.rows(
            """SELECT id FROM approvals WHERE task = ?
               AND (state = 'open' OR (state = 'approved' AND key = ifnull(?, key)))""",
            (task, key),
        )
        for row in rows:
            self._db.execute("UPDATE approvals SET state = 'expired' WHERE id = ?", (row["id"],))
            self._audit.record("approval.expired", task, {"request": row["id"], "because": why})


def _picked(approval: Approval, chosen: Sequence[int]) -> list[int] | None:
    """The chosen hunks in order; None for all of them. `BadInput` for what there is not."""
    if approval.hunks < 1:
        raise BadInput(f"request {approval.id} cannot be approved in parts", hint="approve or reject all of it")
    wrong = [number for number in chosen if not 1 <= number <= approval.hunks]
    if wrong or not chosen:
        there = f"there are 1 to {approval.hunks}"
        raise BadInput(f"there is no hunk {wrong[0]}" if wrong else "no hunk is named", hint=there)
    picked = sorted(set(chosen))
    return picked if len(picked) < approval.hunks else None


def _cut(shown: str) -> str:
    text = shown.encode("utf-8", "backslashreplace").decode()
    if len(text) <= MAX_SHOWN:
        return text
    half, digest = MAX_SHOWN // 2, hashlib.sha256(text.encode()).hexdigest()
    left = f"\n… {len(text) - 2 * half} characters are not shown; SHA-256 of all of it: {digest} …\n"
    return text[:half] + left + text[-half:]


def _approval(row: Mapping[str, Any]) -> Approval:
    fields = dict(row) | {
        "kind": Kind(row["kind"]),
        "state": State(row["state"]),
        "actions": tuple(json.loads(row["actions"])),
        "chosen": tuple(json.loads(row["chosen"])) if row["chosen"] else None,
    }
    return Approval(**fields)
