"""Which stages of a chain a command is about."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from posttrain.errors import UserError

if TYPE_CHECKING:
    from posttrain.stages.graph import Stage


@dataclass(frozen=True)
class Selection:
    """A chain in three parts: what must be there already, what is asked for, and what to rebuild of that."""

    before: list[Stage]
    wanted: list[Stage]
    force: frozenset[str]


def select(
    stages: Sequence[Stage],
    *,
    from_: str | None = None,
    until: str | None = None,
    target: str | Sequence[str] | None = None,
    force: Sequence[str] = (),
) -> Selection:
    """Return the part of a chain between two stages, both included, or what one stage needs.

    Args:
        stages: The chain.
        from_: The first stage; by default that of the chain.
        until: The last one; by default that of the chain.
        target: Instead of both, a stage, or several, wanted with those they are made from, and no others.
        force: Stages to rebuild.

    Raises:
        UserError: If a name is no stage of this chain, the range is empty, or a stage to rebuild is outside it.
    """
    names = [stage.name for stage in stages]
    targets = [target] if isinstance(target, str) else list(target or ())
    asked = [
        ("--from", from_),
        ("--until", until),
        *(("posttrain", name) for name in targets),
        *(("--force", name) for name in force),
    ]
    problems = [_unknown(option, name, names) for option, name in asked if name is not None and name not in names]
    if not names:
        problems = ["the recipe asks for no stage; give it a section cpt, data, sft or dpo"]
    if problems:
        raise UserError(problems)
    first = names.index(from_) if from_ is not None else 0
    last = names.index(until) if until is not None else len(names) - 1
    if first > last:
        raise UserError(f"--from {from_} comes after --until {until}; the order is {', '.join(names)}")
    needed = names if target is None else _needed(stages, targets)
    wanted = [stage for stage in stages[first : last + 1] if stage.name in needed]
    outside = [name for name in force if name not in {stage.name for stage in wanted}]
    if outside:
        listed = ", ".join(stage.name for stage in wanted)
        raise UserError(
            [f"--force {name}: this command is about {listed} only; force one of these" for name in outside]
        )
    return Selection(list(stages[:first]), wanted, frozenset(force))


def _needed(stages: Sequence[Stage], targets: Sequence[str]) -> set[str]:
    needed = set(targets)
    for stage in reversed(stages):  # each stage comes after its inputs
        if stage.name in needed:
            needed.update(stage.inputs)
    return needed


def _unknown(option: str, name: str, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"{option} {name}: the recipe has no such stage, only {', '.join(names)}{hint}"
