"""What has to agree between the entries of `generate`, the models they ask, and the entries of `data` that use them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from posttrain.data.languages import language_code
from posttrain.data.rows import UNKNOWN_LANGUAGE
from posttrain.recipe.origins import Node
from posttrain.recipe.schema_generate import ROLLOUTS
from posttrain.recipe.suggest import did_you_mean

_BY_JUDGE = ("judge", "both")
_BY_REWARD = ("reward", "both")


def check_generate(tree: Node) -> list[str]:
    """Return one message for each rule that the sections on generation break."""
    return [*_entries(tree), *_used(tree)]


def _get(node: Node | None, *keys: str) -> Any:
    """Return the value at some keys of a mapping, or None where one is absent."""
    for key in keys:
        if node is None or not isinstance(node.value, dict):
            return None
        node = node.value.get(key)
    return None if node is None else node.value


def _listed(tree: Node, *keys: str) -> list[Node]:
    found = _get(tree, *keys)
    return [item for item in found if isinstance(item, Node) and isinstance(item.value, dict)] if found else []


def _entries(tree: Node) -> Iterator[str]:
    earlier: list[str] = []
    for number, entry in enumerate(_listed(tree, "generate")):
        key, kind, name = f"generate.{number}", _get(entry, "rollout"), _get(entry, "name")
        if name in earlier:
            yield f"{entry.origin}: {key}.name: {name!r} is the name of an entry before it; give each its own"
        if kind in ROLLOUTS:  # otherwise that is what is wrong
            for problem in (*_rows(entry, kind, earlier), *_models(tree, entry, kind), *_languages(entry, kind)):
                yield f"{entry.origin}: {key}.{problem}"
        if isinstance(name, str):
            earlier.append(name)


def _rows(entry: Node, kind: Any, earlier: list[str]) -> Iterator[str]:
    source, rows_from = _get(entry, "source"), _get(entry, "rows_from")
    if kind == "magpie":
        for key in ("source", "rows_from"):
            if _get(entry, key) is not None:
                yield f"{key}: magpie writes its rows itself; leave it out, and say with rows how many"
        return
    if source is None and rows_from is None:
        yield f"source: {kind} works on rows; give source, or rows_from with the name of an earlier entry"
    if source is not None and rows_from is not None:
        yield "rows_from: source is given too; keep one of them"
    elif isinstance(rows_from, str) and rows_from not in earlier:
        hint = did_you_mean(rows_from, earlier) if earlier else "it is the first"
        yield f"rows_from: no entry before this one is called {rows_from!r}; {hint}"


def _models(tree: Node, entry: Node, kind: Any) -> Iterator[str]:
    teacher, judge = _get(tree, "teacher"), _get(tree, "judge")
    if teacher is None and not (kind == "rate" and judge is not None):
        yield "rollout: there is no teacher to ask; give a section teacher with its model"
    if kind == "respond":
        best_of = _get(entry, "best_of")
        if best_of in _BY_REWARD and _get(tree, "reward") is None:
            yield f"best_of: {best_of} needs a section reward with a reward model"
        if best_of != "first" and _get(entry, "n") == 1:
            yield f"n: {best_of} chooses the best of n answers, and n is 1; give more, or best_of: first"


def _languages(entry: Node, kind: Any) -> Iterator[str]:
    for key in ("language", *(("to",) if kind == "translate" else ())):
        value = _get(entry, key)
        if isinstance(value, str) and language_code(value) == UNKNOWN_LANGUAGE:
            yield f"{key}: {value!r} is no language; give an ISO code such as en, fi"


def _used(tree: Node) -> Iterator[str]:
    names = [name for entry in _listed(tree, "generate") if isinstance(name := _get(entry, "name"), str)]
    for number, entry in enumerate(_listed(tree, "data", "sft")):
        path = _get(entry, "path")
        if _get(entry, "source") == "generated" and isinstance(path, str) and path not in names:
            hint = did_you_mean(path, names) if names else "there are none"
            yield f"{entry.origin}: data.sft.{number}.path: no entry of generate is called {path!r}; {hint}"
