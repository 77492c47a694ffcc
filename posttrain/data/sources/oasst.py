"""Open-Assistant conversations (OASST1, OASST2 and forks), message level or tree level, told by their keys.

Threads: from a tree's first prompt down. Every live follow-up prompt under an answer opens a thread of its own; at
each answer `take: top` follows the best-ranked live reply and `take: all` follows every one. Where some live siblings
are ranked, an unranked one loses to them; where none is, only a reply without live siblings can be the top one. A
thread that would end with a prompt is cut back to the answer before it.

Pairs: two ranked live replies to one prompt, whatever the rank of the answers before it; `margin` is the difference
of their ranks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, Literal

from posttrain.data.languages import language_code
from posttrain.data.rows import (
    SEVERAL_LANGUAGES,
    UNKNOWN_LANGUAGE,
    BadRow,
    PreferenceRow,
    Refused,
    SftRow,
    preference_row,
    sft_row,
)
from posttrain.data.sources.base import Record, Source, SourceKind
from posttrain.data.sources.oasst_forest import Forest, Node, count_messages, plant

LICENSE = "Apache-2.0"


@dataclass(frozen=True, kw_only=True)
class Oasst(Source):
    """`take` says which threads become SFT rows, `pairs` which ranked siblings become preference rows.

    `pairs: top-next` compares the best reply with the second best, `top-last` with the worst, `all` every two.
    """

    take: Literal["top", "all"] = "top"
    pairs: Literal["top-next", "top-last", "all"] = "top-next"
    keep_synthetic: bool = False
    keep_deleted: bool = False
    tree_states: list[str] = field(default_factory=lambda: ["ready_for_export"])

    @property
    def source_license(self) -> str:
        """The licence of the release, for rows of an entry that states none."""
        return LICENSE


def _forest(records: Iterable[Record], options: Oasst, start: int) -> Forest:
    return plant(
        records,
        where=options.path,
        start=start,
        keep_synthetic=options.keep_synthetic,
        keep_deleted=options.keep_deleted,
        tree_states=options.tree_states,
    )


def _best_first(replies: list[Node]) -> list[Node]:
    ranked = [node for node in replies if node.rank is not None]
    return sorted(ranked, key=lambda node: (node.rank, node.id))


def _taken(replies: list[Node], take: str) -> list[Node]:
    """Return the answers that threads follow."""
    if take == "all" or len(replies) <= 1:
        return replies
    return _best_first(replies)[:1]


def threads(root: Node, take: Literal["top", "all"]) -> list[list[Node]]:
    """List the threads of a tree, each from the first prompt to an answer, depth first in the order of the data."""
    found = []
    stack = [[root]]
    while stack:
        thread = stack.pop()
        last = thread[-1]
        if last.is_prompt:
            onward = _taken(last.replies, take)
        else:
            onward = [prompt for prompt in last.replies if prompt.replies and _taken(prompt.replies, take)]
        if onward:
            stack.extend([*thread, node] for node in reversed(onward))
        elif not last.is_prompt:
            found.append(thread)
    return found


def to_sft(records: Iterable[Record], options: Oasst, start: int) -> Iterator[SftRow | Refused]:
    """Convert records to one SFT row a thread; every message that is in no thread is refused with a reason."""
    forest = _forest(records, options, start)
    used: set[int] = set()
    for root in forest.roots:
        for thread in threads(root, options.take):
            used.update(node.unit for node in thread)
            yield sft_row([node.turn for node in thread], **_common(thread, thread, options))
    yield from forest.refused
    for node in forest.live():
        if node.unit not in used:
            yield Refused(node.record, _why_not_in_thread(node, used), node.unit)


def _why_not_in_thread(node: Node, used: set[int]) -> str:
    if node.is_prompt and (node.parent is None or node.parent.unit in used):
        return "prompt without a ranked reply" if node.replies else "prompt without a reply"
    if node.parent is not None and node.parent.is_prompt and any(reply.unit in used for reply in node.parent.replies):
        return "unranked reply among ranked ones" if node.rank is None else "lower-ranked reply"
    if not node.is_prompt and node.rank is None and node.parent is not None and node.parent.parent is None:
        return "unranked reply with siblings"
    return "on a branch not taken"


def paired(replies: list[Node], pairs: Literal["top-next", "top-last", "all"]) -> list[tuple[Node, Node]]:
    """List the pairs (better, worse) of one prompt's replies; replies of equal rank make none."""
    ranked = _best_first(replies)
    if pairs == "all":
        candidates = list(combinations(ranked, 2))
    else:
        worse = ranked[1:2] if pairs == "top-next" else ranked[1:][-1:]
        candidates = [(ranked[0], node) for node in worse]
    return [(better, worse) for better, worse in candidates if better.rank != worse.rank]


def to_preference(records: Iterable[Record], options: Oasst, start: int) -> Iterator[PreferenceRow | Refused]:
    """Convert records to one preference row a pair; every message that is in no pair is refused with a reason."""
    forest = _forest(records, options, start)
    used: set[int] = set()
    same_text: set[int] = set()
    for prompt in forest.live():
        if not prompt.is_prompt:
            continue
        path = prompt.path()
        for better, worse in paired(prompt.replies, options.pairs):
            nodes = [*path, better, worse]
            try:
                row = preference_row(
                    [node.turn for node in path],
                    better.turn["content"],
                    worse.turn["content"],
                    margin=float((worse.rank or 0) - (better.rank or 0)),
                    **_common(nodes, [*path, better], options, rejected=worse.id),
                )
            except BadRow:  # the one way left: both say the same
                same_text.update((better.unit, worse.unit))
                continue
            used.update(row.units)
            yield row
    yield from forest.refused
    for node in forest.live():
        if node.unit not in used:
            yield Refused(node.record, _why_not_in_pair(node, same_text), node.unit)


def _why_not_in_pair(node: Node, same_text: set[int]) -> str:
    if node.unit in same_text:
        return "chosen equals rejected"
    if node.is_prompt:
        return "prompt without a pair of ranked replies"
    if node.rank is None:
        return "unranked reply"
    return "ranked reply not paired"


def _common(nodes: list[Node], thread: list[Node], options: Oasst, **meta: Any) -> dict[str, Any]:
    languages = {language_code(node.record.get("lang")) for node in nodes} - {UNKNOWN_LANGUAGE}
    return {
        "source": options.label,
        "language": SEVERAL_LANGUAGES if len(languages) > 1 else next(iter(languages), UNKNOWN_LANGUAGE),
        "license": options.license or options.source_license,
        "meta": {"tree": nodes[0].tree, "messages": [node.id for node in thread], **meta},
        "units": tuple(node.unit for node in nodes),
    }


KIND = SourceKind(
    name="oasst",
    options=Oasst,
    to_sft=to_sft,
    to_preference=to_preference,
    unit="message",
    whole=True,
    license=LICENSE,
    count_units=count_messages,
)
