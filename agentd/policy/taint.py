"""What a stranger's text may have asked for: a person is asked, unless the owner's own words speak of it.

After the first name of a file, text, output or page that a task has seen, its model may be doing what stands there. No
list of bad words can tell; so what is done is held against what the owner said, which no stranger can add to.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from agentd.types import Action, Decision, Ruling

RULE = "taint"
"""Name of the rule that asks here."""
RISK = 65
MOST = 50_000
"""Characters of the owner's words that are looked at."""

_NOT = re.compile(
    r"(?:\b(?:not|never|without|avoid|instead of|rather than|cannot|nothing|no)\b|n['’]t\b|\bdont\b)[^.;!?\n]{0,40}$",
    re.IGNORECASE,
)
_NO_ORDER = re.compile(
    r"(?:\b(?:i|we)(?:['’](?:ll|d|ve))?(?:\s+(?:will|shall|can|could|may|might|would|do|did|must|should|have|had|already|to))*"
    r"|\blet\s+(?:me|us)|\b(?:is|was)\s+(?:it\s+)?(?:safe|ok|okay|fine|possible|allowed|time)\s+to"
    r"|\bhow\s+(?:to|(?:do|does|did|can|could|would|should)\s+\w+)|\b(?:what|which|who)(?:\s+\w+){0,2}"
    r"|\b(?:whether|when|what)\s+to|\bwhy\b(?:(?!\b(?:and|then)\b)(?:[^.;,!?\n]|\.(?=\S))){0,60}"
    r"|\b(?:code|scripts?|functions?|commands?|tests?|lines?|parts?|programs?)\s+(?:that|which|to)(?:\s+\w+)?)\s+$",
    re.IGNORECASE,
)
"""Before a verb: it is asked about, or others do it."""
_DELETING = re.compile(
    r"\b(?:delet(?:e|ing)|remov(?:e|ing)|rm|eras(?:e|ing)|drop|unlink|purg(?:e|ing)|wipe|discard|get rid of"
    r"|throw away|clean (?:up|out))\b(?:\s+-\w+)?",
    re.IGNORECASE,
)
_MOVING = re.compile(
    r"\b(?:mov(?:e|es|ing)|renam(?:e|es|ing)|mv|relocate|put|change the name of|give)\b", re.IGNORECASE
)
_RUNNING = (
    r"\b(?:run|runs|running|rerun|execute|start|launch|call|invoke|do|with|use|using|and|then)\s+"
    r"(?:(?:the|command|program|script)\s+){0,3}"
)
_END = r"(?:$|[.,;:!?)]|(?:and|then|to|again|until|once|first|twice|after|before|so|please|for)\b)"
_COMMITTING = re.compile(
    r"(?:^|[.;:,!?\n(]\s*|\b(?:and|then|please|finally|also|afterwards|must|should|to|you|will|can|just)\s+)"
    r"(?:git\s+)?commit\b(?!\s+(?:messages?|history|ids?|hash|log)\b)"
    r"|\bcommit\s+(?:it|them|the\s+(?:change|result|fix|file|work)|all|everything|your|my|this|that|these|what|changes"
    r"|when|once|to git|with)\b"
    r"|\b(?:make|create|do|record)\s+(?:(?:a|one|the|git|local|new|single)\s+){0,3}commit\b"
    r"|\b(?:save|record|store|put)\b[^.;\n]{0,40}\b(?:in|into|to)\s+git\b"
    r"|\b(?:be|get|want|leave|have\s+(?:it|them|this|that|the|all|everything))\b[^.;?\n]{0,40}\bcommitted\b",
    re.IGNORECASE,
)
_QUOTED = re.compile(
    r"(?<!\w)(?:'[^'\n]{1,500}'|\"[^\"\n]{1,500}\"|`[^`\n]{1,500}`|“[^”\n]{1,500}”|«[^»\n]{1,500}»)(?!\w)"
)
_FILLERS = frozenset(
    re.findall(
        r"\w+",
        "the a an this that these those my our your its file files folder folders directory directories dir dirs both "
        "all every each and or also old whole entire empty temporary obsolete unused stale named called everything "
        "inside in from under of path paths any located at",
    )
)
_PRONOUNS = ("it", "them")
_EDGES = " \t,;:!?()[]{}'\"`“”«»"
_COMMON = frozenset(
    re.findall(
        r"\w+",
        "tool tools that this with from into which what when them they then each there their would could should takes "
        "gives given file files text make makes need needs missing able some something other using used return "
        "returns returned read reads write writes does have has value values string list number name names result "
        "results input output",
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A call of a tool that policy allows. `quiet`: what it runs are tests, linters or looks at the repository."""

    tool: str
    actions: Sequence[Action]
    texts: Sequence[str] = ()
    """Of its arguments."""
    quiet: bool = False
    reaches: bool = False
    """It may use the network."""
    beside: Sequence[Action] = ()
    """What else the call touches, and was judged already."""


def asked(call: Call, owner: Sequence[str]) -> tuple[Action, Decision] | None:
    """The action of a tainted call that a person has to allow, and why; None where the owner spoke of all of it."""
    words = "\n".join(owner)[:MOST]
    for action in call.actions:
        missing = _missing(action, call, words)
        if missing:
            return action, _ask(missing)
    return None


def asked_install(purpose: str, hosts: Iterable[str], owner: Sequence[str]) -> Decision | None:
    """The same for a new tool: its purpose and its servers have to be in the owner's words."""
    words = "\n".join(owner)[:MOST]
    for host in hosts:
        if host.partition(":")[0].casefold() not in words.casefold():
            return _ask(f"no word of the owner names the server {host!r}")
    wanted = _content(purpose)
    strange = [word for word in wanted if not _spoken(word, words)]
    if wanted and len(strange) * 2 <= len(wanted):
        return None
    return _ask(f"no word of the owner speaks of {strange[0]!r}" if strange else "it does not say what it is for")


def _ask(missing: str) -> Decision:
    because = f"This task has read what others wrote, which may have asked for it: {missing}."
    return Decision(ruling=Ruling.ASK, rule=RULE, because=because, risk=RISK)


def _missing(action: Action, call: Call, words: str) -> str:
    """What the owner would have had to say; empty when they did, or when the action does no harm."""
    match action.kind:
        case "fs.delete":
            return _undeleted(action, call, words)
        case "git.commit":
            return "" if _commits(words) else "no word of the owner asks for a commit"
        case "shell.exec" | "test.run":
            return "" if call.quiet else _unrun(action.argv, words)
        case "net.connect" | "model.send" | "model.pull":
            host = action.target.rpartition(":")[0].casefold() or action.target.casefold()
            return "" if host in words.casefold() else f"no word of the owner names the server {action.target!r}"
        case "plugin.install":
            return f"no word of the owner names the tool {action.target!r}" if action.target not in words else ""
        case "mcp.call":
            return _unsent(call, words)
        case "plugin.call" if call.reaches:
            return _unsent(call, words)
        case _:
            return ""


def _undeleted(action: Action, call: Call, words: str) -> str:
    landings = [other.target for other in (*call.actions, *call.beside) if other.kind == "fs.write"]
    if not landings:
        named = any(_covers(name, action.target) for name in _objects(_DELETING, words))
        return "" if named else f"no word of the owner says that {action.target!r} is to be deleted"
    if not any(_covers(name, action.target) for name in _objects(_MOVING, words)):
        return f"no word of the owner says that {action.target!r} is to be moved"
    there = _plain_names(words)
    lost = next((each for each in landings if not any(_covers(name, each) for name in there)), "")
    return f"no word of the owner names {lost!r}" if lost else ""


def _unrun(argv: Sequence[str], words: str) -> str:
    if argv[:2] == ("git", "commit"):
        return "" if _commits(words) else "no word of the owner asks for a commit"
    line = " ".join(argv)
    said = " ".join(re.sub(r"[`\"“”]|(?<!\w)'|'(?!\w)", " ", words).split())
    wanted = " ".join(re.sub(r"[`\"“”]|(?<!\w)'|'(?!\w)", " ", line).split())
    pattern = re.compile(_RUNNING + re.escape(wanted) + r"\s*" + _END, re.I)
    named = any(_is_ordered(said[max(0, found.start() - 80) : found.start()]) for found in pattern.finditer(said))
    return "" if named else f"no word of the owner says to run {line[:200]!r}"


def _unsent(call: Call, words: str) -> str:
    folded = " ".join(words.casefold().split())
    strange = next((text for text in call.texts if " ".join(text.casefold().split()) not in folded), None)
    if strange is not None:
        return f"it would send {strange[:60]!r} over the network, which is no word of the owner"
    named = any(_spoken(part, words) for part in re.split(r"[_\W]+", call.tool) if len(part) > 3)
    return "" if named else f"no word of the owner speaks of {call.tool!r}, which uses the network"


def _commits(words: str) -> bool:
    said = _unquoted(words)
    verbs = (
        (found, found.start() + max(0, found[0].casefold().find("commit"))) for found in _COMMITTING.finditer(said)
    )
    return any(
        _is_ordered(said[max(0, verb - 80) : verb]) and not _NOT.search(said[: found.start() + 1][-61:])
        for found, verb in verbs
    )


def _is_ordered(before: str) -> bool:
    """Whether what stands before a verb lets it ask for something."""
    return not (_NOT.search(before) or _NO_ORDER.search(before))


def _objects(verb: re.Pattern[str], words: str) -> Iterator[str]:
    """The names that follow the verb at once: `delete the files a.log and b.log`, not `delete the line in a.py`."""
    said = _unquoted(words)
    for found in verb.finditer(said):
        if _is_ordered(said[max(0, found.start() - 60) : found.start()]):
            for name in _following(said[found.end() : found.end() + 2000]):
                yield from (
                    _named_before(said[max(0, found.start() - 500) : found.start()], name)
                    if name in _PRONOUNS
                    else (name,)
                )


def _following(said: str) -> Iterator[str]:
    for token in said.split():
        name = token.strip(_EDGES).rstrip(".") or "."
        if name.casefold() not in _FILLERS and name != ".":
            if not re.search(r"[./*]|^[\w-]+$", name):
                return
            yield name
            if re.fullmatch(r"[\w-]+", name):
                return  # a plain word may be a folder, but what follows it is another matter
        if token.rstrip("'\"`)”»").endswith((".", ";", "!", "?")):
            return


def _named_before(said: str, pronoun: str) -> list[str]:
    names = [name for name in _plain_names(said) if re.search(r"\w[./]\w|\w/", name)]
    return names[-1:] if pronoun == "it" else names


def _unquoted(words: str) -> str:
    """Without what is quoted and has several words: that is content, and asks for nothing."""
    return _QUOTED.sub(lambda found: " " if re.search(r"\s", found[0]) else found[0], words)


def _plain_names(words: str) -> list[str]:
    return [token.strip(_EDGES).rstrip(".") for token in words.split()]


def _covers(name: str, path: str) -> bool:
    """Whether a name that the owner wrote is the path, a folder above it, or a pattern for it."""
    said, meant = _even(name), _even(path)
    if not said or said in ("*", "**"):
        return False
    if "*" in said:
        return fnmatchcase(meant, said) or ("/" not in said and fnmatchcase(meant.rpartition("/")[2], said))
    return meant == said or meant.startswith(f"{said}/")


def _even(path: str) -> str:
    return path.casefold().replace("\\", "/").removeprefix("./").rstrip("/")


def _content(text: str) -> list[str]:
    found = dict.fromkeys(re.findall(r"[^\W\d_]{3,}", text[:MOST].casefold()))
    return [word for word in found if word not in _COMMON and (len(word) > 3 or not word.isalpha())] or list(found)


def _spoken(word: str, words: str) -> bool:
    """Whether the owner used the word, or one that begins the same."""
    stem = word.casefold()[:5]
    return re.search(rf"(?<![^\W_]){re.escape(stem)}", words, re.I) is not None
