"""Conversation trees in the two forms of OASST, with the traps that the real sets have."""

from __future__ import annotations

from random import Random
from typing import Any

from .chats import Asker, follow_up
from .faults import faulty
from .questions import Exchange
from .world import EN, FI

Node = dict[str, Any]
_QUALITY = (0.9, 0.45, 0.2)


def _node(r: Random, role: str, text: str, language: str, parent: Node | None, rank: int | None = None) -> Node:
    """A message with the replies to it under `replies`; both file forms are made from it."""
    node: Node = {
        "message_id": f"{r.getrandbits(36):09x}",
        "parent_id": parent["message_id"] if parent else None,
        "user_id": f"u{r.randint(1, 60)}",
        "text": text,
        "role": role,
        "lang": language,
        "review_count": 3,
        "review_result": True,
        "deleted": False,
        "rank": rank,
        "synthetic": False,
        "model_name": None,
        "quality": None if rank is None else round(_QUALITY[min(rank, 2)] + r.choice((-0.05, 0.0, 0.05)), 2),
        "replies": [],
    }
    if parent:
        parent["replies"].append(node)
    return node


def _answer(r: Random, x: Exchange, parent: Node, replies: int) -> Node:
    """Give ranked replies, in a random order, and return the best: the right answer; the others have faults."""
    faults = [faulty(r, x)]
    if replies > 2:
        faults.append(faulty(r, x, other_than=(faults[0].kind,)))
    faults.sort(key=lambda fault: fault.severity)
    texts = list(enumerate([x.answers[0], *(fault.text for fault in faults)]))
    r.shuffle(texts)
    nodes = {rank: _node(r, "assistant", text, x.language, parent, rank) for rank, text in texts}
    return nodes[0]


def _tree(r: Random, asker: Asker, language: str) -> Node:
    x = asker.ask(r, language)
    root = _node(r, "prompter", x.prompt, language, None)
    best = _answer(r, x, root, r.choice((2, 2, 3)))
    if r.random() < 0.3:
        y = follow_up(r, x)
        _answer(r, y, _node(r, "prompter", y.prompt, language, best), 2)
    return root


def _spoil(r: Random, root: Node, asker: Asker, trap: str) -> None:
    """Put one trap into a tree."""
    language, replies = root["lang"], root["replies"]
    best = next(reply for reply in replies if reply["rank"] == 0)
    if trap == "deleted":
        best["deleted"] = True
    elif trap == "synthetic":
        best["synthetic"], best["model_name"] = True, "lampila-model"
    elif trap == "unranked":
        for reply in replies:
            reply["rank"] = reply["quality"] = None
    elif trap == "ends_with_prompter":
        while best["replies"]:
            best["replies"].pop()
        _node(r, "prompter", asker.ask(r, language).prompt, language, best)
    elif trap == "orphan":
        y = asker.ask(r, language)
        orphan = _node(r, "assistant", y.answers[0], language, root, None)
        orphan["parent_id"] = "fffffffff"
    elif trap == "no_replies":
        replies.clear()
    elif trap == "aborted":
        root["tree_state"] = "aborted_low_grade"
    else:
        raise ValueError(f"unknown trap {trap!r}")


TRAPS = ("deleted", "synthetic", "unranked", "ends_with_prompter", "orphan", "no_replies", "aborted")


def _trees(
    r: Random, asker: Asker, count: int, every: int, traps: tuple[str, ...], languages: tuple[str, ...] = (EN, FI)
) -> list[Node]:
    """Trees of the languages by turns; every `every`th pair of trees has the next trap."""
    trees = []
    for i in range(count):
        root = _tree(r, asker, languages[i % len(languages)])
        if i // 2 % every == every - 1:
            _spoil(r, root, asker, traps[i // 2 // every % len(traps)])
        trees.append(root)
    return trees


def message_rows(
    r: Random, asker: Asker, count: int, every: int = 8, languages: tuple[str, ...] = (EN, FI)
) -> list[Node]:
    """Message level: a row a message, a parent before its replies, `labels` as parallel lists.

    Every `every`th pair of trees has a trap.
    """
    rows: list[Node] = []

    def add(node: Node, root: Node) -> None:
        row = {key: value for key, value in node.items() if key not in ("replies", "quality", "tree_state")}
        row["message_tree_id"] = root["message_id"]
        row["tree_state"] = root.get("tree_state", "ready_for_export")
        quality = node["quality"]
        row["labels"] = None if quality is None else {"name": ["quality"], "value": [quality], "count": [3]}
        rows.append(row)
        for reply in node["replies"]:
            add(reply, root)

    for root in _trees(r, asker, count, every, TRAPS, languages):
        add(root, root)
    return rows


def tree_rows(r: Random, asker: Asker, count: int) -> list[Node]:
    """Tree level: a row a tree, replies nested, `labels` as a map; a message without rank or labels lacks the key."""

    def nested(node: Node) -> Node:
        row = {
            key: value
            for key, value in node.items()
            if key not in ("replies", "quality", "tree_state") and not (key in ("rank", "parent_id") and value is None)
        }
        row["replies"] = [nested(reply) for reply in node["replies"]]
        if node["quality"] is not None:
            row["labels"] = {"quality": {"value": node["quality"], "count": 3}}
        return row

    traps = tuple(trap for trap in TRAPS if trap != "orphan")  # a nested reply always has its parent
    return [
        {
            "message_tree_id": root["message_id"],
            "tree_state": root.get("tree_state", "ready_for_export"),
            "prompt": nested(root),
        }
        for root in _trees(r, asker, count, 3, traps)
    ]
