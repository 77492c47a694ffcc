"""The nearest change of a recipe with which a training stage fits its devices."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import combinations, product

from posttrain.planning.hardware import Hardware
from posttrain.planning.memory import Memory, peak
from posttrain.planning.setup import adapter
from posttrain.planning.step import SHARDED, Setup
from posttrain.recipe.schema import Lora

_MORE = (2, 4, 8, 16, 32, 64)  # times the devices
CONFIGS = {"fsdp2": "launch/accelerate/fsdp2.yaml", "zero3": "launch/accelerate/zero3.yaml"}


@dataclass(frozen=True)
class Change:
    """One change of a setup: what to write on the command line, and the fields of `Setup` that it sets.

    `costs` orders the kinds: what leaves the result as it is comes first, what trains something else last.
    """

    costs: int
    overrides: str
    fields: Mapping[str, object]


def _changes(setup: Setup) -> list[list[Change]]:
    """Return the changes that there are, by kind, the cheapest kind first and within it the smallest change."""
    section, groups = setup.stage, []
    if not setup.checkpointing:
        groups.append([Change(1, f"{section}.gradient_checkpointing=true", {"checkpointing": True})])
    if setup.eval_rows > 1:
        groups.append([Change(0, f"{section}.per_device_eval_batch_size=1", {"eval_rows": 1})])
    rows = [setup.rows >> shift for shift in range(1, 8) if setup.rows % (1 << shift) == 0]
    if rows:
        key = f"{section}.per_device_train_batch_size"
        smaller = [{"rows": n, "accumulate": setup.accumulate * setup.rows // n} for n in rows]
        groups.append([Change(2, f"{key}={n}", dict(fields)) for n, fields in zip(rows, smaller, strict=True)])
    if setup.strategy not in SHARDED and not setup.nf4:
        groups.append([Change(3, f"launch.config={CONFIGS['fsdp2']}", {"strategy": "fsdp2"})])
    groups.append(
        [Change(4, f"launch.num_processes={setup.devices * by}", {"devices": setup.devices * by}) for by in _MORE]
    )
    if setup.adapter is None and section != "cpt":
        lora = adapter(Lora(), setup.shape)
        plain = {"adapter": lora, "reference": False}
        groups.append([Change(5, f"{section}.lora={{r: {Lora().r}}}", plain)])
        if setup.strategy not in SHARDED:
            both = f"{section}.lora={{r: {Lora().r}}} {section}.quantization=nf4"
            groups.append([Change(6, both, plain | {"nf4": True})])
    elif not setup.nf4 and section != "cpt" and setup.strategy not in SHARDED:
        groups.append([Change(6, f"{section}.quantization=nf4", {"nf4": True})])
    return groups


def _applied(setup: Setup, chosen: tuple[Change, ...]) -> Setup | None:
    """Return the setup with the changes, or None where they do not go together or the batch does not divide."""
    fields: dict[str, object] = {}
    for change in chosen:
        if fields.keys() & change.fields.keys() - {"accumulate"}:
            return None  # LoRA twice
        fields |= change.fields
    if fields.get("nf4") and fields.get("strategy", setup.strategy) in SHARDED:
        return None
    devices = fields.get("devices", setup.devices)
    rows = fields.get("rows", setup.rows)
    assert isinstance(devices, int)
    assert isinstance(rows, int)
    whole = setup.rows * setup.devices * setup.accumulate
    if whole % (devices * rows) or (devices == 1 and fields.get("strategy") in SHARDED):
        return None
    fields["accumulate"] = whole // (devices * rows)
    if devices > 1 and fields.get("strategy", setup.strategy) == "none":
        fields["strategy"] = "ddp"
    return replace(setup, **fields)  # type: ignore[arg-type]


def _in_order(setup: Setup) -> Iterator[tuple[tuple[Change, ...], Setup]]:
    groups = _changes(setup)
    for count in range(1, 5):
        chosen = [each for kinds in combinations(groups, count) for each in product(*kinds)]
        for changes in sorted(chosen, key=lambda changes: [change.costs for change in reversed(changes)]):
            changed = _applied(setup, changes)
            if changed is not None:
                yield changes, changed


def nearest_fit(setup: Setup, hardware: Hardware) -> tuple[str, Setup, Memory] | None:
    """Return the fewest changes with which a stage fits, as overrides; None where none of those known is enough.

    Among as many changes those come first that leave what is trained as it is.
    """
    for changes, changed in _in_order(setup):
        memory = peak(changed)
        if memory.total <= hardware.usable:
            return " ".join(change.overrides for change in changes), changed, memory
    return None
