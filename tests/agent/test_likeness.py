import pytest

from agentd.agent.likeness import Likeness, cosine

TEXTS = ["Copy the file", "Delete the file", "Count the lines of the file"]


def test_the_same_words_are_as_alike_as_can_be():
    like = Likeness(TEXTS)
    assert cosine(like.vector("delete THE file"), like.vector("Delete the file")) == pytest.approx(1.0)


def test_a_rare_word_counts_more_than_a_common_one():
    like = Likeness(TEXTS)
    request = like.vector("copy a file")
    assert cosine(request, like.vector(TEXTS[0])) > 2 * cosine(request, like.vector(TEXTS[1]))


def test_nothing_in_common_and_nothing_at_all():
    like = Likeness(TEXTS)
    assert cosine(like.vector("weather"), like.vector(TEXTS[0])) == 0
    assert like.vector("123 !?") == {}
