"""Open-Assistant messages assembled into trees, from either level of the release, without those that are unfit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain

from posttrain.data.rows import BadRow, Message, Refused, turn
from posttrain.data.sources.base import Record
from posttrain.errors import UserError

ROLES = {"prompter": "user", "assistant": "assistant"}


@dataclass(eq=False)
class Node:
    """One live message: fit to use, and so is everything before it. `unit` is its number in reading order."""

    unit: int
    id: str
    tree: str
    turn: Message
    rank: int | None
    record: Record
    parent: Node | None = None
    replies: list[Node] = field(default_factory=list)

    @property
    def is_prompt(self) -> bool:
        return self.turn["role"] == "user"

    def path(self) -> list[Node]:
        """List the messages from the first prompt to this one."""
        nodes = [self]
        while nodes[-1].parent is not None:
            nodes.append(nodes[-1].parent)
        return nodes[::-1]


@dataclass(eq=False)
class Forest:
    """The live messages by tree, in the order of the data, and what was refused."""

    roots: list[Node]
    refused: list[Refused]

    def live(self) -> Iterator[Node]:
        """Yield every live message, a tree at a time, each before its replies."""
        stack = self.roots[::-1]
        while stack:
            node = stack.pop()
            yield node
            stack.extend(reversed(node.replies))


@dataclass(frozen=True)
class _Raw:
    unit: int
    record: Record
    parent: object
    tree: object
    state: object


def is_tree(record: Record) -> bool:
    """Tell the tree level, a nested `prompt`, from the message level."""
    return isinstance(record.get("prompt"), dict)


def _nested(record: Record) -> Iterator[tuple[Record, object]]:
    """Yield the messages of a tree-level record with the id of the message each replies to."""
    stack: list[tuple[Record, object]] = [(record["prompt"], None)]
    while stack:
        message, parent = stack.pop()
        yield message, parent
        replies = message.get("replies")
        if isinstance(replies, (list, tuple)):
            nested = (reply if isinstance(reply, dict) else {"text": reply} for reply in reversed(replies))
            stack.extend((reply, message.get("message_id")) for reply in nested)


def count_messages(record: Record) -> int:
    """Count the messages of a record: one, or all of a tree's."""
    return sum(1 for _ in _nested(record)) if is_tree(record) else 1


def _flatten(records: Iterable[Record], start: int) -> Iterator[_Raw]:
    unit = start
    for record in records:
        if not is_tree(record):
            state = record.get("tree_state")
            yield _Raw(unit, record, record.get("parent_id"), record.get("message_tree_id"), state)
            unit += 1
            continue
        for message, parent in _nested(record):
            own = {name: value for name, value in message.items() if name != "replies"}
            yield _Raw(unit, own, parent, record.get("message_tree_id"), record.get("tree_state"))
            unit += 1


def _check_level(record: Record, where: str) -> None:
    if not is_tree(record) and not {"message_id", "text", "role"} <= record.keys():
        raise UserError(
            f"{where}: is neither level of OASST; its columns are {', '.join(record) or '(none)'}; a message has "
            "message_id, parent_id, text and role, a tree has message_tree_id and a nested prompt; "
            "for rows with messages use source: generic"
        )


def plant(
    records: Iterable[Record],
    *,
    where: str,
    start: int,
    keep_synthetic: bool,
    keep_deleted: bool,
    tree_states: list[str],
) -> Forest:
    """Assemble records of either level into trees of live messages; every other message is refused.

    Args:
        records: Messages, in any order, or trees.
        where: What an error calls the data.
        start: The number of the first message.
        keep_synthetic: Keep messages marked `synthetic`.
        keep_deleted: Keep messages marked `deleted`.
        tree_states: The states of trees to keep; a tree that states none is kept.

    Raises:
        UserError: The first record is of neither level.
    """
    stream = iter(records)
    first = next(stream, None)
    if first is None:
        return Forest([], [])
    _check_level(first, where)
    refused: list[Refused] = []
    nodes: dict[str, Node] = {}
    parents: dict[str, object] = {}
    unfit: set[str] = set()
    for raw in _flatten(chain([first], stream), start):
        try:
            node = _node(raw, nodes, keep_synthetic, keep_deleted, tree_states)
        except BadRow as bad:
            refused.append(Refused(raw.record, str(bad), raw.unit))
            if isinstance(name := raw.record.get("message_id"), str):
                unfit.add(name)
            continue
        nodes[node.id] = node
        parents[node.id] = raw.parent
    return _connect(nodes, parents, unfit, refused)


def _node(raw: _Raw, nodes: dict[str, Node], keep_synthetic: bool, keep_deleted: bool, tree_states: list[str]) -> Node:
    record = raw.record
    name, role, rank = record.get("message_id"), record.get("role"), record.get("rank")
    if not isinstance(name, str) or not name:
        raise BadRow(f"message_id is not text: {name!r}")
    if name in nodes:
        raise BadRow(f"message_id seen before: {name}")
    if raw.state is not None and raw.state not in tree_states:
        raise BadRow(f"tree state: {raw.state}")
    if record.get("deleted") and not keep_deleted:
        raise BadRow("deleted")
    if record.get("synthetic") and not keep_synthetic:
        raise BadRow("synthetic")
    if role not in ROLES:
        raise BadRow(f"unknown role: {role!r}, expected prompter or assistant")
    if isinstance(rank, bool) or not (rank is None or (isinstance(rank, (int, float)) and float(rank).is_integer())):
        raise BadRow(f"rank is not a whole number: {rank!r}")
    return Node(
        unit=raw.unit,
        id=name,
        tree=raw.tree if isinstance(raw.tree, str) else "",
        turn=turn(ROLES[role], record.get("text")),
        rank=None if rank is None else int(rank),
        record=record,
    )


def _connect(nodes: dict[str, Node], parents: dict[str, object], unfit: set[str], refused: list[Refused]) -> Forest:
    """Hang every message below its parent, then refuse those that no chain of live messages joins to a prompt."""
    roots = []
    reasons: dict[str, str] = {}
    for name, node in nodes.items():
        parent_id = parents[name]
        if not parent_id:
            if node.is_prompt:
                roots.append(node)
            else:
                reasons[name] = "roles out of order: a tree starts with an assistant"
            continue
        parent = nodes.get(parent_id) if isinstance(parent_id, str) else None
        if parent is None:
            reasons[name] = "reply to a refused message" if parent_id in unfit else "orphan: its parent is absent"
        elif parent.is_prompt == node.is_prompt:
            reasons[name] = f"roles out of order: {node.turn['role']} replies to {parent.turn['role']}"
        else:
            node.parent = parent
            parent.replies.append(node)
    forest = Forest(roots, refused)
    for root in roots:
        root.tree = root.tree or root.id
    joined = set()
    for node in forest.live():
        joined.add(node.id)
        if node.parent is not None:
            node.tree = node.parent.tree
    for name, node in nodes.items():
        if name not in joined:
            refused.append(Refused(node.record, reasons.get(name, "reply to a refused message"), node.unit))
    return forest
