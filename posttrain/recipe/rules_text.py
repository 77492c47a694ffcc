"""What has to agree within `cpt`: the shares of its texts, and how much of them is trained on."""

from __future__ import annotations

import math
from typing import Any

from posttrain.recipe.origins import Node
from posttrain.recipe.schema import Training

SHARES_OFF_BY = 0.005  # what rounding may do: three shares of 0.333


def check_text(tree: Node) -> list[str]:
    """Return what is wrong with the mixture of a recipe's texts, as far as its values have the right types."""
    section = tree.value.get("cpt")
    if section is None or not isinstance(section.value, dict):
        return []
    return [*_shares(section), *_budget(section)]


def _number(node: Node | None) -> float | None:
    if node is None or isinstance(node.value, bool) or not isinstance(node.value, int | float | str):
        return None
    try:
        value = float(node.value)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _shares(section: Node) -> list[str]:
    node = section.value.get("text")
    texts = node.value if node is not None and isinstance(node.value, list) else []
    texts = [text for text in texts if isinstance(text, Node) and isinstance(text.value, dict)]
    given = [text.value.get("share") for text in texts]
    written = [share for share in given if share is not None and share.value is not None]
    problems = [
        f"{text.value['repeat'].origin}: cpt.text.{index}.repeat: only a text with a share ends the training; "
        "give shares, or leave repeat out"
        for index, text in enumerate(texts)
        if not written and (repeat := text.value.get("repeat")) is not None and repeat.value is False
    ]
    if written and len(written) < len(texts):
        problems += [
            f"{text.origin}: cpt.text.{index}.share: missing, while another text has one; give each text a share, "
            "or none of them"
            for index, (text, share) in enumerate(zip(texts, given, strict=True))
            if share is None or share.value is None
        ]
        return problems
    values = [_number(share) for share in written]
    known = [value for value in values if value is not None and 0 < value <= 1]
    if written and len(known) == len(written) and abs(sum(known) - 1) > SHARES_OFF_BY:
        listed = " + ".join(f"{value:g}" for value in known)
        problems.append(f"{written[0].origin}: cpt.text: the shares {listed} make {sum(known):g}; they must make 1")
    return problems


def _budget(section: Node) -> list[str]:
    keys: dict[str, Any] = section.value
    tokens = _number(keys.get("tokens"))
    if tokens is None:
        return []
    problems = []
    where = keys["tokens"].origin
    steps = _number(keys.get("max_steps"))
    if steps is not None and steps > 0:
        problems.append(f"{where}: cpt.tokens: cpt.max_steps says how long to train too; keep one of them")
    elif _number(keys.get("num_train_epochs")) not in (None, Training.num_train_epochs):
        problems.append(f"{where}: cpt.tokens: cpt.num_train_epochs says how long to train too; keep one of them")
    length, rows = _number(keys.get("max_length")), _number(keys.get("global_batch_size"))
    if length is not None and rows is not None and 0 < tokens < length * rows:
        problems.append(
            f"{where}: cpt.tokens: {tokens:g} is less than one step of {length * rows:g} tokens "
            f"({rows:g} rows of {length:g}); raise it"
        )
    return problems
