"""A sentence or two about each variant, from its own row of numbers alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from posttrain.release.quantize.kernels import NO_GROUP

# Perplexity as a multiple of the unquantised model's, up to which a loss is called so.
_LOSSES = ((1.01, "hardly any loss"), (1.05, "a small loss"), (1.15, "a noticeable loss"))
_WORST = "a heavy loss, for where memory leaves no other choice"


def advice(record: Mapping[str, Any]) -> str:
    """Return the advice on a variant.

    Args:
        record: Its entry of `variants.json`, with everything measured.
    """
    groups = "no groups" if record["group_size"] == NO_GROUP else f"groups of {record['group_size']}"
    order = "act order" if record["desc_act"] else "no act order"
    made = f"{record['bits']} bits, {groups}, {order}"
    if record["failed"] is not None:
        return f"{made}: do not use it, {record['failed']}."
    ratio = record["perplexity_ratio"]
    loss = next((text for most, text in _LOSSES if ratio <= most), _WORST)
    parts = [f"{made}: perplexity {ratio:.3f} times the unquantised model's, {loss}."]
    works = [name for name, found in record["backends"].items() if found["generates"]]
    fails = [name for name in record["backends"] if name not in works]
    if fails:
        why = ""
        if record["group_size"] == NO_GROUP:
            why = ", as is common without groups"
        elif record["undivided"]:
            why = f", as its groups do not divide the columns of {', '.join(record['undivided'])}"
        parts.append(f"Load it with backend={either(works)}; it does not generate with {either(fails)}{why}.")
    else:
        parts.append(f"It generates with backend={either(works, 'and')}.")
    if record["exllama"]:
        parts.append(
            "ExLlama reads its format, but not its group size." if record["undivided"] else "ExLlama reads its format."
        )
    return " ".join(parts)


def either(names: list[str], word: str = "or") -> str:
    """Join names with commas and a last word."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} {word} {names[-1]}"
