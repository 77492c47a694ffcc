"""Two builds of one recipe, stage by stage: equal in every byte, within tolerance, or parted."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from posttrain.differences import CODE, FILE, INPUT, changed_parts, describe
from posttrain.release.checkpoints import STAGES

Outcome = Literal["equal", "within", "follows", "different"]
Values = Mapping[str, Any]
Curve = Mapping[str, Sequence[Sequence[float]]]

# How far the loss curves of two trainings may be apart that ran on different hardware, with other versions or in
# another number of processes, where rounding tells them apart: as a share of the loss that training began with. Between
# the AVX-512 and the baseline kernels of one processor the tiny recipe measured 0.001% (cpt), 0.1% (sft) and 1.9% (dpo,
# which adds up what came apart before it).
TOLERANCE = 0.03
# Stages that read weights and give figures: where the weights are not equal, neither are these.
_OF_WEIGHTS = ("ref-logps", "quantize", "eval")
_SHOWN = 5  # names in a line


@dataclass(frozen=True)
class Comparison:
    """One stage of two builds: what came of it, and why, in words."""

    stage: str
    outcome: Outcome
    text: str


def compare_stage(
    stage: str,
    before: Values,
    after: Values,
    *,
    builds: tuple[Values, Values],
    curves: tuple[Curve | None, Curve | None],
    earlier: Mapping[str, Outcome],
) -> Comparison:
    """Compare what two builds of a stage left.

    Args:
        stage: Its name.
        before: The stable part of the recorded manifest.
        after: That of the new build.
        builds: The volatile parts of both.
        curves: The loss curves of both, where the stage trains.
        earlier: What came of the stages before it.
    """
    inputs = [name for name in before["inputs"] if earlier.get(name, "equal") != "equal"]
    changed = [part for part in changed_parts(before["parts"], after["parts"]) if not part.startswith(INPUT)]
    if changed:
        said = [describe(part, before["parts"], after["parts"], {}) for part in changed[:_SHOWN]]
        more = f"; and {len(changed) - _SHOWN} more" if len(changed) > _SHOWN else ""
        why = "its files are not the recorded ones" if all(part.startswith(FILE) for part in changed) else "built anew"
        if all(part.startswith(CODE) for part in changed):
            why = "another version of posttrain"
        return Comparison(stage, "different", f"is made from something else ({why}): {'; '.join(said)}{more}")
    if before["digest"] == after["digest"]:
        count = len(before["files"])
        return Comparison(stage, "equal", f"equal, byte for byte ({count} file{'' if count == 1 else 's'})")
    files = different_files(before["files"], after["files"])
    named = ", ".join(files[:_SHOWN]) + (f" and {len(files) - _SHOWN} more" if len(files) > _SHOWN else "")
    others = circumstances((before, builds[0]), (after, builds[1]))
    if stage in STAGES:
        return _compare_training(stage, named, others, inputs, curves)
    if inputs and all(earlier[name] in ("within", "follows") for name in inputs):
        return Comparison(stage, "follows", f"differs as {', '.join(inputs)} does: {named}")
    if stage in _OF_WEIGHTS and others:
        return Comparison(stage, "follows", f"computed anew ({'; '.join(others)}), differs in {named}")
    return Comparison(stage, "different", f"differs in {named}")


def _compare_training(
    stage: str, named: str, others: list[str], inputs: list[str], curves: tuple[Curve | None, Curve | None]
) -> Comparison:
    if not others and not inputs:
        return Comparison(
            stage, "different", f"differs in {named}, though hardware, versions and processes are the same"
        )
    why = "; ".join([*others, *(f"{name} differs" for name in inputs)])
    if curves[0] is None or curves[1] is None:
        return Comparison(stage, "different", f"differs in {named} ({why}), and there is no loss curve to compare")
    apart = curve_differences(curves[0], curves[1])
    if apart is None:
        return Comparison(stage, "different", f"differs in {named} ({why}), and the loss curves have no step in common")
    said = ", ".join(f"{what} {value:.2%} apart" for what, value in apart.items())
    if max(apart.values()) <= TOLERANCE:  # false where one is not a number
        return Comparison(stage, "within", f"differs in {named} ({why}); {said}: within {TOLERANCE:.0%}")
    return Comparison(stage, "different", f"differs in {named} ({why}); {said}: more than {TOLERANCE:.0%}")


def curve_differences(one: Curve, two: Curve) -> dict[str, float] | None:
    """Return how far two loss curves are apart at the steps that both logged, as shares of the first's first loss.

    Shares of what is left of a loss would grow as training brings it down: of DPO that is near nothing.

    Returns:
        `training loss`: the root mean square of the differences; `held-out loss`, where there is one: the largest. None
        where the curves share no step.
    """
    found = {}
    pairs = _pairs(one.get("loss", ()), two.get("loss", ()))
    if pairs:
        square = sum((first - second) ** 2 for first, second in pairs) / len(pairs)
        found["training loss"] = _share(math.sqrt(square), one["loss"][0][1])
    held_out = _pairs(one.get("eval_loss", ()), two.get("eval_loss", ()))
    if held_out:
        found["held-out loss"] = _share(max(abs(a - b) for a, b in held_out), one["eval_loss"][0][1])
    return found or None


def _share(difference: float, begun_with: float) -> float:
    return difference / abs(begun_with) if begun_with else math.inf


def _pairs(one: Sequence[Sequence[float]], two: Sequence[Sequence[float]]) -> list[tuple[float, float]]:
    first, second = ({point[0]: point[1] for point in points} for points in (one, two))  # the last of a step counts
    return [(first[step], second[step]) for step in sorted(first.keys() & second.keys())]


def different_files(before: Values, after: Values) -> list[str]:
    """Return the names of the files that two folders do not share, each with what is different."""
    found = []
    for name in sorted({**before, **after}):
        if name not in after:
            found.append(f"{name} (missing)")
        elif name not in before:
            found.append(f"{name} (new)")
        elif before[name]["sha256"] != after[name]["sha256"]:
            found.append(name)
    return found


def circumstances(one: tuple[Values, Values], two: tuple[Values, Values]) -> list[str]:
    """Say what of two builds' circumstances differs on which the last bits of weights depend."""
    found = []
    hardware = [dict(volatile.get("hardware") or {}) for _, volatile in (one, two)]
    for key in ("cpu", "machine", "cores", "isa", "threads", "gpus"):
        first, second = (each.get(key) for each in hardware)
        if first != second and None not in (first, second):
            found.append(f"{key}: was {first}, is {second}")
    if not all(hardware):
        found.append("the hardware of the recorded build is not known")
    versions = [stable["versions"] for stable, _ in (one, two)]
    for name in sorted({**versions[0], **versions[1]}):
        if versions[0].get(name) != versions[1].get(name):
            found.append(f"{name}: was {versions[0].get(name)}, is {versions[1].get(name)}")
    if one[0]["world_size"] != two[0]["world_size"]:
        found.append(f"processes: were {one[0]['world_size']}, are {two[0]['world_size']}")
    return found
