"""Fenced blocks begin and end as CommonMark says."""

from __future__ import annotations

from posttrain.data.steps.fences import find_fences


def code(text: str) -> list[str]:
    return [text[start:end] for start, end in find_fences(text).blocks]


def test_blocks_close_with_the_same_fence_at_least_as_long() -> None:
    assert code("a\n```py\nx\n```\nb\n~~~\ny\n~~~\n") == ["```py\nx\n```", "~~~\ny\n~~~"]
    assert code("````\n```\nx\n```\n````\nb") == ["````\n```\nx\n```\n````"]
    assert code("```\n~~~\n```\nb") == ["```\n~~~\n```"]
    assert code("```\nx\n```py\ny") == ["```\nx\n```py\ny"]


def test_inline_code_and_text_are_no_fence() -> None:
    assert code("a ``` b\n```x``` y\n``z``") == []


def test_fences_in_lists_and_quotations_count() -> None:
    assert code("- ```\n  x\n  ```\n> ```\n> y\n> ```") == ["- ```\n  x\n  ```", "> ```\n> y\n> ```"]


def test_outside_and_blocks_together_are_the_text() -> None:
    for text in ("", "a", "```\nx\n```", "a\n```\nx\n```\nb", "a\n```\nx"):
        fences = find_fences(text)
        pieces = sorted([*fences.blocks, *fences.outside(len(text))])
        assert "".join(text[start:end] for start, end in pieces) == text


def test_unfinished_needs_something_after_the_fence() -> None:
    assert find_fences("```\nx").unfinished
    assert find_fences("```python").unfinished
    assert not find_fences("```\n").unfinished
    assert not find_fences("```\nx\n```").unfinished
