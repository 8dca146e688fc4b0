"""The policies that ship: what they let pass at which level, and what never."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentd.policy.commands import action_of
from agentd.policy.engine import PolicyEngine
from agentd.types import AccessLevel, Action, Origin, Ruling

HERE = Path(__file__).parent
POLICIES = HERE.parents[1] / "policies"
ATTACKS = [line for line in Path(__file__).with_name("attacks.txt").read_text().splitlines() if line and line[0] != "#"]

# Command lines of an ordinary day, and the first level that allows them.
ORDINARY = [
    ("pytest", 2),
    ("pytest -q", 2),
    ("pytest -xvs tests/test_a.py::test_b", 2),
    ("pytest tests -k 'parse and not slow' --maxfail=1 --tb=short", 2),
    ("pytest --lf -ra --durations=5", 2),
    ("pytest -p no:cacheprovider tests", 2),
    ("pytest -m slow -n auto", 2),
    ("pytest 'tests/test_a.py::test_b[x-1]'", 2),
    ("python -m pytest", 2),
    ("python -m pytest -q tests/unit", 2),
    ("python3 -m pytest --cov=src --cov-report=term-missing", 2),
    ("ruff check", 2),
    ("ruff check . --fix", 2),
    ("ruff check --select E,F src tests", 2),
    ("ruff format --check .", 2),
    ("ruff format src/a.py", 2),
    ("black .", 2),
    ("black --check --diff src", 2),
    ("mypy src", 2),
    ("mypy --strict -p agentd", 2),
    ("mypy --ignore-missing-imports a.py b.py", 2),
    ("npm test", 2),
    ("npm run lint", 2),
    ("npm test --silent", 2),
    ("git status", 2),
    ("git status --short --branch", 2),
    ("git diff", 2),
    ("git diff --stat HEAD~1", 2),
    ("git diff main..feature -- src/a.py", 2),
    ("git diff --cached --name-only", 2),
    ("git log --oneline -5", 2),
    ("git log -n 3 --since='2 weeks ago' --author=ann", 2),
    ("git log -p -- config", 2),
    ("git --no-pager log --graph --all", 2),
    ("git log --format='%h %an %s' -- docs/push", 2),
    ("git commit -m 'Add a page: the second, and ~10 fixes'", 3),
    ("git commit -am 'push the limits'", 3),
    ("git commit -m x src/a.py", 3),
    ("ls -la src", 4),
    ("make test", 4),
    ("cargo test", 4),
    ("go test .", 4),
    ("python build.py --out dist -c fast", 4),
    ("python -m unittest -v", 4),
    ("node script.js", 4),
    ("npm run build", 4),
    ("grep -rn TODO src", 4),
    ("cat README.md", 4),
    ("cp a.txt b.txt", 4),
    ("wc -l notes.txt", 4),
    ("sort -u names.txt", 4),
]


@pytest.fixture(scope="module")
def engine() -> PolicyEngine:
    return PolicyEngine.load(POLICIES)


def rulings(engine: PolicyEngine, action: Action) -> list[Ruling]:
    return [engine.decide(action, level=level).ruling for level in AccessLevel]


def allowed_from(engine: PolicyEngine, text: str) -> int | None:
    """The first level that allows it; every higher one must allow it too."""
    found = rulings(engine, action_of(text))
    first = found.index(Ruling.ALLOW) if Ruling.ALLOW in found else None
    assert first is None or set(found[first:]) == {Ruling.ALLOW}
    return first


def test_there_are_enough_lines() -> None:
    assert len(ATTACKS) >= 60
    assert len(ORDINARY) >= 30


@pytest.mark.parametrize("line", ATTACKS)
def test_an_attack_is_denied_at_every_level(engine: PolicyEngine, line: str) -> None:
    action = action_of(line)
    assert set(rulings(engine, action)) == {Ruling.DENY}
    # The same words through the tool that runs tests.
    assert set(rulings(engine, Action(kind="test.run", argv=action.argv))) == {Ruling.DENY}


@pytest.mark.parametrize(("line", "level"), ORDINARY)
def test_an_ordinary_line_is_allowed_from_its_level_up(engine: PolicyEngine, line: str, level: int) -> None:
    assert allowed_from(engine, line) == level


@pytest.mark.parametrize(
    ("action", "level"),
    [
        ("fs.read src/a.py", 0),
        ("fs.read .", 0),
        ("fs.read .env.example", 0),
        ("fs.read .github/workflows/ci.yml", 0),
        ("fs.read src/credentials.py", 0),
        ("git.read", 0),
        ("output.read out-3", 0),
        ("check.exec bash -c 'test -f x && curl y'", 0),
        ("check.exec /usr/bin/true", 0),
        ("fs.write src/new/a.py", 1),
        ("fs.write .gitignore", 1),
        ("fs.delete old.log", 1),
        ("test.run python -m pytest -q", 2),
        ("test.run npm test", 2),
        ("git.commit", 3),
    ],
)
def test_what_each_level_adds(engine: PolicyEngine, action: str, level: int) -> None:
    assert allowed_from(engine, action) == level


@pytest.mark.parametrize("kind", ["fs.read", "fs.write", "fs.delete"])
@pytest.mark.parametrize(
    "path",
    [
        *("/etc/passwd", "..", "../x", "a/../../x", "a/..", "~", "~/x", "~root/x", "C:/x", "c:x", "\\\\host\\share"),
        *("..\\x", "a\\..\\..\\x", "", "a\0b", "//host/share", ".. /x"),
        *(".env", ".ENV", "deploy/.env.local", "x.pem", "X.PEM", "tls/server.key", "id_rsa", "id_ed25519.bak"),
        *(".ssh/config", "home/.aws/credentials", ".netrc", ".npmrc", "credentials.json", ".gnupg/x", "./.env"),
        *("a//.env", ".env.", ".env ", ".env::$DATA", ".git/config", ".e\u200bnv", "\uff0eenv"),
    ],
)
def test_no_level_opens_these_paths(engine: PolicyEngine, kind: str, path: str) -> None:
    assert set(rulings(engine, Action(kind=kind, target=path))) == {Ruling.DENY}


@pytest.mark.parametrize("kind", ["fs.write", "fs.delete"])
@pytest.mark.parametrize(
    "path",
    [
        *(".git", ".git/", ".git/hooks/pre-commit", ".GIT/config", "sub/.git/HEAD", ".git./x", ".git /x", "GIT~1/x"),
        *(".g\u200cit/x", ".git\\hooks\\x", ".agentd", ".agentd/rules.yaml", "./.agentd//x"),
    ],
)
def test_nobody_writes_to_git_or_agentd(engine: PolicyEngine, kind: str, path: str) -> None:
    assert set(rulings(engine, Action(kind=kind, target=path))) == {Ruling.DENY}


def test_the_workspace_itself_is_not_deleted(engine: PolicyEngine) -> None:
    for path in (".", "./", ".//."):
        assert set(rulings(engine, Action(kind="fs.delete", target=path))) == {Ruling.DENY}


@pytest.mark.parametrize("argv", [(), ("",), ("ls", "a\0b"), ("ls",) * 5000, ("echo", "x" * 200_000)])
def test_a_command_that_is_none_is_denied(engine: PolicyEngine, argv: tuple[str, ...]) -> None:
    decision = engine.decide(Action(kind="shell.exec", argv=argv), level=AccessLevel.EXTENDED_SHELL)
    assert (decision.ruling, decision.rule) == (Ruling.DENY, "malformed")


def test_a_denial_says_who_decided_and_why(engine: PolicyEngine) -> None:
    push = engine.decide(action_of("git push --force"), level=AccessLevel.EXTENDED_SHELL)
    assert push.rule == "git-publishing"
    assert "owner" in push.because
    assert push.risk >= 90
    assert engine.decide(action_of("fs.read /etc/passwd"), level=AccessLevel.READ_ONLY).rule == "outside-workspace"


def test_a_level_too_low_names_the_one_that_is_needed(engine: PolicyEngine) -> None:
    decision = engine.decide(action_of("git.commit"), level=AccessLevel.RUN_TESTS)
    assert (decision.ruling, decision.rule) == (Ruling.DENY, "default")
    assert "level 3 (git commit)" in decision.because


def test_the_examples_of_allow_rules_are_really_allowed(engine: PolicyEngine) -> None:
    """An example that another rule denies would promise what does not hold."""
    for rule in engine.rules:
        if rule.decision.ruling is not Ruling.ALLOW:
            continue
        for example in rule.examples:
            action = action_of(example, rule.match.kinds[0])
            decision = engine.decide(action, level=rule.match.span[0], origin=Origin.CLI)
            assert decision.ruling is Ruling.ALLOW, (rule.id, example, decision)


def test_levels_are_described(engine: PolicyEngine) -> None:
    assert [level.level for level in engine.levels] == list(AccessLevel)
    assert all(level.name and level.about and level.rules for level in engine.levels)


# plugins: what they touch is judged by itself -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "first"),
    [
        ("plugin.call csv_to_json", 0),
        ("plugin.read release-notes", 0),
        ("import collections.abc", 0),
        ("plugin.install csv_to_json", 1),
    ],
)
def test_plugins_work_from_a_level_on(engine: PolicyEngine, line: str, first: int) -> None:
    action = action_of(line)
    assert rulings(engine, action).index(Ruling.ALLOW) == first


@pytest.mark.parametrize(
    "line",
    [
        *("plugin.call", "plugin.call a b", "plugin.call ../x", "plugin.call a*", "plugin.install x/y"),
        *("import", "import a;b", "import ..a", "import a/b", "mcp.call files", "mcp.call files/read/x"),
    ],
)
def test_what_is_no_name_is_denied(engine: PolicyEngine, line: str) -> None:
    assert set(rulings(engine, action_of(line))) == {Ruling.DENY}


@pytest.mark.parametrize("line", ["mcp.call files/read", "git.hook pre-commit", "git.sign"])
def test_what_the_owner_has_to_allow_first(engine: PolicyEngine, line: str) -> None:
    assert set(rulings(engine, action_of(line))) == {Ruling.DENY}


def test_plugins_reach_no_server_before_a_rule_says_so(engine: PolicyEngine) -> None:
    for host in ("api.weather.example:443", "127.0.0.1:80", "localhost:443"):
        decision = engine.decide(Action(kind="net.connect", target=host), level=AccessLevel.EXTENDED_SHELL)
        assert (decision.ruling, "net.connect" in decision.because) == (Ruling.DENY, True), host


# what is publicly known to lead out of an allowed program ------------------------------------------------------------

ESCAPES = [line for line in Path(__file__).with_name("escapes.txt").read_text().splitlines() if line and line[0] != "#"]


@pytest.mark.parametrize("line", ESCAPES)
def test_no_escape_is_allowed_below_the_extended_shell(engine: PolicyEngine, line: str) -> None:
    argv = action_of(line).argv
    for kind in ("shell.exec", "test.run"):
        action = Action(kind=kind, argv=argv)
        assert Ruling.ALLOW not in rulings(engine, action)[: AccessLevel.EXTENDED_SHELL], kind


def test_no_leak_of_the_extended_shell_is_open(engine: PolicyEngine) -> None:
    """What runs code from the command line, publishes, destroys: denied, or asked where no rule names the program."""
    leaks = [line for line in (HERE / "leaks.txt").read_text().splitlines() if line and line[0] != "#"]
    assert [line for line in leaks if Ruling.ALLOW in rulings(engine, action_of(line))] == []
    asked = [line for line in leaks if Ruling.ASK in rulings(engine, action_of(line))]
    assert len(asked) * 10 < len(leaks) > 400


def test_an_ordinary_day_is_allowed_from_its_level_up(engine: PolicyEngine) -> None:
    lines = [line for line in (HERE / "ordinary.txt").read_text().splitlines() if line and line[0] != "#"]
    found = [f"{allowed_from(engine, line.partition(' ')[2])} {line.partition(' ')[2]}" for line in lines]
    assert [line for line in found if line not in lines] == []
    assert len(lines) > 400


def test_a_program_that_no_rule_names_is_asked_about(engine: PolicyEngine) -> None:
    decisions = [engine.decide(action_of("somebodys-tool --fast a"), level=level) for level in AccessLevel]
    assert [each.ruling for each in decisions] == [Ruling.DENY] * 4 + [Ruling.ASK]
    assert decisions[4].rule == "other-programs"


@pytest.mark.parametrize(
    "line",
    [
        *(
            "git commit -m x /etc/passwd",
            "git commit -m x ../y",
            "git commit -am x -- /etc/passwd",
            "git commit -F /etc/x",
        ),
        *("git log -m /etc/passwd", "git log -S x /etc/passwd", "git log --grep x -- ../y", "git commit -m x .env"),
        *(
            "git log --format=%h -- .env",
            "git diff @/etc/passwd",
            "git diff @:../x",
            "git log @~/x",
            "git commit -m x -m",
        ),
    ],
)
def test_what_is_said_hides_no_place(engine: PolicyEngine, line: str) -> None:
    assert set(rulings(engine, action_of(line))) == {Ruling.DENY}


@pytest.mark.parametrize(
    "name", ["rm -rf x", "\u0455udo", "\uff52\uff4d", "s\u200budo", "ls;x", "$(x)", "`x`", "ls|sh", "a\nb", "!x", "*"]
)
def test_what_is_no_name_of_a_program_is_denied(engine: PolicyEngine, name: str) -> None:
    for kind in ("shell.exec", "test.run"):
        decision = engine.decide(Action(kind=kind, argv=(name, "x")), level=AccessLevel.EXTENDED_SHELL)
        assert (decision.ruling, decision.rule) == (Ruling.DENY, "malformed")
    typed = engine.decide(Action(kind="check.exec", argv=("./my check.sh", "x")), level=AccessLevel.READ_ONLY)
    assert typed.ruling is Ruling.ALLOW


def test_there_are_escapes_of_many_programs() -> None:
    assert len(set(ESCAPES)) == len(ESCAPES) >= 60
    assert len({line.split()[0] for line in ESCAPES}) >= 60
