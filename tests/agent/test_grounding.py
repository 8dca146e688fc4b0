import pytest

from agentd.agent.grounding import Kind, looks_like_path, mentions, spans, words


def named(text, names=(), before=""):
    return [(mention.kind, mention.value) for mention in mentions(text, names, before)]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("How long is notes.txt?", [(Kind.PATH, "notes.txt")]),
        ("Put 'a b' into x/y.md, please.", [(Kind.QUOTED, "a b"), (Kind.PATH, "x/y.md")]),
        ('Say "it\'s" in a.txt', [(Kind.QUOTED, "it's"), (Kind.PATH, "a.txt")]),
        ("What's in Bob's file?", []),
        ("Find TODO or parse_config() here", [(Kind.CODE, "TODO"), (Kind.CODE, "parse_config")]),
        ("Where is HttpClient?", [(Kind.CODE, "HttpClient")]),
        ("Read /etc/passwd and ~/x and ../y", [(Kind.PATH, "/etc/passwd"), (Kind.PATH, "~/x"), (Kind.PATH, "../y")]),
        ("Write to ann@example.com about https://a.org/x.html", []),
        ("Version 3.7 of 2026", []),
        ("Show .env", [(Kind.PATH, ".env")]),
    ],
)
def test_what_a_request_names(text, found):
    assert named(text) == found


def test_a_bare_word_is_a_name_when_it_exists():
    assert named("List the docs folder", ["docs"]) == [(Kind.NAME, "docs")]
    assert named("List the docs folder") == []


def test_a_later_step_may_point_back():
    assert named("commit it", before="a.txt") == [(Kind.PRONOUN, "a.txt")]
    assert named("write the number to b.txt", before="a.txt") == [(Kind.RESULT, "the number"), (Kind.PATH, "b.txt")]
    assert named("write the number to b.txt") == [(Kind.PATH, "b.txt")]


def test_spans_avoid_what_is_named_and_function_words_at_the_ends():
    text = "Create a.txt with the text see you soon"
    taken = mentions(text, [])
    found = [span.value for span in spans(text, taken)]
    assert "see you soon" in found
    assert "text see you soon" in found
    assert not any("a.txt" in value for value in found)
    assert not any(value.split()[0] in ("the", "with") for value in found)
    assert all(text[span.start : span.end] == span.value for span in spans(text, taken))


def test_words_lose_their_punctuation():
    assert words("Is 'a b.txt' (or c.md), here?") == sorted({"a b.txt", "Is", "a", "b.txt", "or", "c.md", "here"})


@pytest.mark.parametrize("word", ["a/b", "x.py", ".gitignore", "/abs", "../up", "dir/"])
def test_paths(word):
    assert looks_like_path(word)


@pytest.mark.parametrize("word", ["word", "3.5", "e@mail.com", "http://x.org/a.txt", "and/or?"])
def test_no_paths(word):
    assert not looks_like_path(word)
