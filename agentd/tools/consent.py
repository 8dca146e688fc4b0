"""What a person says to a call that needs their yes, held to exactly what they were shown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from agentd.errors import AgentdError, Denied, ToolFailed
from agentd.policy.approvals import Approval, Approvals, State
from agentd.tools.books import Books
from agentd.tools.judgement import Judged, Refused
from agentd.tools.order import Order
from agentd.tools.preview import Part, Preview, asked, preview
from agentd.tools.tool import ToolContext
from agentd.types import Action, JsonObject, ToolResult


@dataclass(slots=True, kw_only=True)
class Consent:
    """To one call; without `approvals` nobody can be asked."""

    approvals: Approvals | None
    order: Order
    books: Books
    settled: bool = False
    """Nothing more is to be asked: the call runs, or has a reason why it does not."""
    approval: Approval | None = None
    view: Preview | None = None
    """What the person was shown."""
    part: Part | None = None
    """What is done in place of the tool's run, where a person has left something out."""

    @property
    def is_possible(self) -> bool:
        """Whether a person can be asked, and the call be taken up again when they have answered."""
        scope = self.order.scope
        return self.approvals is not None and (bool(scope.task) or scope.person is not None)

    @property
    def facts(self) -> JsonObject:
        """What a person has answered, for the audit log."""
        if self.approval is not None:
            approval = self.approval
            return {"request": str(approval.id), "answer": approval.state, "by": approval.answerer}
        person = self.order.scope.person
        return {"answer": State.APPROVED, "by": person.name} if person is not None and self.view is not None else {}

    def take(
        self, judged: Judged, ctx: ToolContext, try_out: Callable[[ToolContext], ToolResult | str] | None
    ) -> AgentdError | None:
        """Take the answer to exactly this call: `Refused` until there is one. Gives why the call fails, if it does."""
        assert self.approvals is not None
        tool, args, scope = self.order.tool, self.order.args, self.order.scope
        view = preview(tool, args, ctx, judged.actions, try_out)
        if view.failure is not None:
            return view.failure
        request = asked(view, tool, args, judged.actions, judged.decision, task=scope.task, key=self.order.key)
        if scope.person is not None:
            if request.digest not in scope.person.approved:
                raise Refused(judged, request)
            self.view = view
            return None
        answer = self.approvals.standing(request)
        if answer is None:
            raise Refused(judged, request)
        self.approval, self.view = answer, view
        if answer.state is State.REJECTED:
            why = f": {answer.words}" if answer.words else ""
            return ToolFailed(f"a person refused this{why}", hint="find another way, or end the step")
        if answer.chosen is not None:
            self.part = view.part(answer.chosen)
        return None

    def take_within(self, judged: Judged, action: Action, ctx: ToolContext) -> None:
        """Take the answer to what the call met while it ran; `Refused` until there is one, `Denied` where it is no.

        It counts for every run of this very call: what was allowed once is met again by the next.
        """
        assert self.approvals is not None
        tool, args, scope = self.order.tool, self.order.args, self.order.scope
        view = preview(tool, args, ctx, (action,), None)
        request = asked(view, tool, args, (action,), judged.decision, task=scope.task, key="")
        request = replace(request, key=f"{self.order.key} {request.digest[:16]}")  # beside other answers to this call
        if scope.person is not None:
            if request.digest not in scope.person.approved:
                raise Refused(judged, request)
            return
        answer = self.approvals.standing(request)
        if answer is None:
            raise Refused(judged, request)
        if answer.state is State.REJECTED:
            raise Denied(f"a person refused {judged.action}{f': {answer.words}' if answer.words else ''}")
        self.approvals.use(answer)

    def use(self) -> None:
        """It counts once; a part of the caller's transaction."""
        if self.approval is not None and self.approval.state is State.APPROVED and self.approvals is not None:
            self.approvals.use(self.approval)

    def expect_unchanged(self) -> None:
        """`ToolFailed` unless the files stand as the person saw them."""
        if self.view is not None and not self.view.stands(self.books.workspace):
            raise ToolFailed("what was approved has changed in this moment", hint="look at it again")

    def expect_shown(self) -> None:
        """`ToolFailed` unless the files are now what the person was shown."""
        if self.view is not None and not self.view.came_true(self.books.workspace):
            raise ToolFailed(
                "it did something else than a person was shown and approved", hint="look at what it changed"
            )
