"""git typed as a command line: a few commands with known options only, run like the git tools."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence

from agentd.errors import Denied, ToolFailed, ToolMisused
from agentd.sandbox.launch import Completed
from agentd.tools.git import commit, commit_own, committed
from agentd.tools.programs import must_end, refuse_outside
from agentd.tools.repository import TIMEOUT, Change, Repository, open_repository, readable
from agentd.tools.tool import ToolContext
from agentd.workspace.names import normal

# An option that is not listed is refused: others write files (--output), read outside (--no-index), run programs
# (--ext-diff, --show-signature, the placeholder %G), look into submodules, or change the lines of a diff by which
# files that may not be read are told (--color, --word-diff).
_DIFF = (
    r"-p|-u|--patch|--no-patch|--stat(=[\d,]+)?|--dirstat|--compact-summary|--full-index|--abbrev=\d+|-a|--text"
    r"|--shortstat|--numstat|--summary|--name-only|--name-status|--raw|-z|-U\d+"
    r"|--unified=\d+|-w|-b|--ignore-all-space|--ignore-space-change|--ignore-space-at-eol|--ignore-cr-at-eol"
    r"|--ignore-blank-lines|--minimal|--patience"
    r"|--histogram|-M\d*%?|-C\d*%?|--find-renames|--no-renames|--diff-filter=\w+|--no-color|--color=never|--no-ext-diff"
    r"|--no-textconv"
)
_LOG = (
    r"--oneline|--decorate(=\w+)?|--no-decorate|--abbrev-commit|--no-abbrev-commit|--date=[\w:%-]+|--(format|pretty)=.*"
    r"|--pretty"
)
_OPTIONS = {
    "status": re.compile(
        r"-s|-b|-sb|--short|--branch|--long|--porcelain(=v?[12])?|-z|-u(no|normal|all)?|--untracked-files(=\w+)?"
        r"|--ignored|--no-renames|--show-stash|--ahead-behind"
    ),
    "diff": re.compile(rf"{_DIFF}|--cached|--staged|--merge-base|-R|--check|--exit-code|--quiet"),
    "log": re.compile(
        rf"{_DIFF}|{_LOG}|-\d+|-n\d+|--max-count=\d+|--graph|--all|--branches|--tags|--remotes|--date-order|--topo-order"
        r"|--author-date-order|--boundary|--left-right|--cherry-pick|--simplify-by-decoration|--show-pulls|--invert-grep"
        r"|--all-match|-E|-F|-[SG].+|--reverse|--follow|--merges|--no-merges|--first-parent|-i|--skip=\d+"
        r"|--(since|after|until|before|author|committer|grep)=.*"
    ),
    "show": re.compile(rf"{_DIFF}|{_LOG}|-s|-q|--quiet|--first-parent"),
    "blame": re.compile(r"-L\d+,[+-]?\d+|-w|-s|-e|-M|-C|--show-email|--date=[\w:%-]+|--abbrev=\d+"),
    "branch": re.compile(r"-a|-r|-v|-vv|--all|--remotes|--list|--show-current|--no-color|--no-column|--verbose"),
    "ls-files": re.compile(
        r"-c|-d|-m|-o|-s|-t|-z|-i|--cached|--deleted|--modified|--others|--stage|--ignored|--exclude-standard|--full-name"
        r"|--error-unmatch"
    ),
    "rev-parse": re.compile(r"--short(=\d+)?|--abbrev-ref|--verify|-q|--quiet|--is-inside-work-tree|--show-prefix"),
}
_VALUED = {
    "blame": ("-L",),
    "log": ("-n", "--since", "--after", "--until", "--before", "--author", "--committer", "--grep", "-S", "-G"),
}
_COMMIT_AND_PATH = re.compile(r"(?P<commit>[^:]+):(?P<path>.+)")
_NO_PROGRAMS = ("--ignore-submodules=all", "--no-ext-diff", "--no-textconv")
_SAFE = {
    "status": ("--ignore-submodules=all",),
    "diff": _NO_PROGRAMS,
    "log": (*_NO_PROGRAMS, "--no-show-signature"),
    "show": (*_NO_PROGRAMS, "--no-show-signature"),
    "branch": ("--no-color", "--no-column"),
}
_SIGNED = re.compile(r"%[-+ ]?G")
_PATCH = re.compile(r"-p|-u|--patch|-U\d+|--unified=\d+")
_SILENT = ("-q", "--quiet", "-v", "--verbose", "-n", "--no-verify", "--no-gpg-sign", "--no-edit")
"""Options of commit that say what holds anyway."""


def git_command(ctx: ToolContext, arguments: Sequence[str]) -> Completed:
    """Run what stands after `git`; `ToolMisused` for anything but a few commands and their known options."""
    name, *rest = arguments or ("",)
    with open_repository(ctx) as repository:
        if name == "commit":
            return _commit(ctx, repository, rest)
        if name not in _OPTIONS:
            raise ToolMisused(f"git {name} is not offered", hint=f"there are git commit, {', '.join(_OPTIONS)}")
        operands, paths = _refuse_unknown(ctx, name, rest)
        if name == "show":
            _refuse_contents(ctx, repository, operands)
        if name == "blame":
            _refuse_unreadable(ctx, [*operands, *paths])
        if name == "branch" and (operands or paths):
            raise ToolMisused("git branch: a name would make one", hint="without a name it lists them")
        done = repository.run(name, *_SAFE.get(name, ()), *rest)
    must_end(done, f"git {name}", TIMEOUT)
    return Completed(
        code=done.code, stdout=readable(done.stdout, ctx.may_read), stderr=done.stderr, seconds=done.seconds
    )


def _refuse_contents(ctx: ToolContext, repository: Repository, operands: Sequence[str]) -> None:
    """Contents are shown by their path, which policy can judge, and never by an id."""
    for word in operands:
        if found := _COMMIT_AND_PATH.fullmatch(word):
            word = found["commit"]
            _refuse_unreadable(ctx, [found["path"]])
        # Of a range git shows commits alone; a path that goes up and down again could be any.
        is_range = ".." in word and ":" not in word and found is None
        if not is_range and repository.run("rev-parse", "--verify", "--quiet", f"{word}^{{commit}}").code != 0:
            raise ToolMisused(f"git show: {word!r} is no commit", hint="name a commit, or COMMIT:PATH")


def _refuse_unreadable(ctx: ToolContext, paths: Sequence[str]) -> None:
    for path in paths:
        if ".." in path.split("/") or not ctx.may_read(normal(path)):
            raise Denied(f"policy keeps {path} from being read")


def _refuse_unknown(ctx: ToolContext, name: str, arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Gives what is no option nor the value of one: before `--`, and the paths after it."""
    if "--graph" in arguments and any(map(_PATCH.fullmatch, arguments)):
        # Its lines stand before those by which files that may not be read are told.
        raise ToolMisused("git log: --graph does not go with a patch", hint="leave out --graph or -p")
    words, operands = iter(arguments), []
    for word in words:
        if word == "--":
            break
        if word in _VALUED.get(name, ()):
            next(words, None)
        elif word.startswith("-"):
            if not _OPTIONS[name].fullmatch(word) or _SIGNED.search(word):
                raise ToolMisused(f"git {name}: option {word!r} is not offered", hint="leave it out")
        else:
            operands.append(word)
    paths = list(words)
    for word in (*operands, *paths):
        refuse_outside(ctx, word)
    return operands, paths


def _commit(ctx: ToolContext, repository: Repository, arguments: Sequence[str]) -> Completed:
    started = time.monotonic()
    messages, everything, paths = _parse(ctx, arguments)
    if not messages:
        raise ToolMisused("git commit: there is no message", hint='git commit -m "what changed"')
    if ctx.own is not None:
        text = committed(ctx, repository, commit_own(ctx, repository, "\n\n".join(messages), paths))
        return Completed(code=0, stdout=text, stderr="", seconds=time.monotonic() - started)
    changes = _chosen(repository, everything, paths)
    found = repository.staged() if changes is None else changes
    blocked = [change.path for change in found if not ctx.may_read(change.path)]
    if not found or blocked:
        what = f"policy keeps {', '.join(blocked)} from being read" if blocked else "nothing is staged or changed"
        raise ToolFailed(f"nothing was committed: {what}", hint="git commit -a takes every changed file")
    sha = commit(ctx, repository, "\n\n".join(messages), changes)
    text = committed(ctx, repository, sha)
    return Completed(code=0, stdout=text, stderr="", seconds=time.monotonic() - started)


def _chosen(repository: Repository, everything: bool, paths: Sequence[str]) -> list[Change] | None:
    """The changes to commit; None for what is staged."""
    if paths:
        found = {change.path: change for path in paths for change in repository.changes(path, renames=False)}
        return list(found.values())
    if everything:
        return [change for change in repository.changes(renames=False) if change.tracked]
    return None


def _parse(ctx: ToolContext, arguments: Sequence[str]) -> tuple[list[str], bool, list[str]]:
    """Messages, whether -a was given, and paths."""
    messages: list[str] = []
    paths: list[str] = []
    everything = False
    words = iter(arguments)
    for word in words:
        if word in ("-m", "--message", "-am", "-qm"):
            everything |= word == "-am"
            messages.append(_value(word, words))
        elif word.startswith("--message="):
            messages.append(word.partition("=")[2])
        elif word in ("-a", "--all"):
            everything = True
        elif word == "--":
            paths.extend(words)
        elif word.startswith("-") and word not in _SILENT:
            raise ToolMisused(f"git commit: option {word!r} is not offered", hint="there are -m, -a and paths")
        elif not word.startswith("-"):
            paths.append(word)
    for path in paths:
        ctx.workspace.resolve(path)
    return messages, everything, paths


def _value(option: str, words: Iterator[str]) -> str:
    value = next(words, None)
    if value is None:
        raise ToolMisused(f"git commit: {option} needs a message", hint='git commit -m "what changed"')
    return value
