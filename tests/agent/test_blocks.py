from agentd.agent.constrained import blocks


def test_blocks_are_found_by_name():
    text = "Here:\n```search\nold\n```\nand\n~~~replace\nnew\n~~~\n"
    assert blocks(text, ["search", "replace"]) == {"search": "old", "replace": "new"}


def test_a_single_block_without_a_name_is_the_first():
    assert blocks("```\nHello\n```", ["content"]) == {"content": "Hello"}
    assert blocks("```python\nx = 1\ny = 2\n```", ["content"]) == {"content": "x = 1\ny = 2\n"}


def test_a_longer_fence_holds_a_shorter_one():
    assert blocks("````content\n```\ncode\n```\n````", ["content"]) == {"content": "```\ncode\n```\n"}


def test_an_empty_block_is_an_empty_text():
    assert blocks("```content\n```", ["content"]) == {"content": ""}


def test_no_fence_gives_nothing():
    assert blocks("content: Hello", ["content"]) == {}
    assert blocks("```content\nnever closed", ["content"]) == {}
