"""The funnel of a source: from the records read to the rows kept, a line for every reason of a loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from posttrain.data.report.words import by_count, count, percent, plural, step_name, step_order

Kind = Literal["start", "loss", "left"]

_FIRST = ("read", "convert")  # they count what was read; the others count rows
REASONS = 6  # shown a step

COLUMNS = {
    "unusable": _FIRST,
    "filtered": ("markup", "truncation", "length", "language", "repetition", "refusal", "vendor"),
    "contaminated": ("decontaminate",),
    "duplicates": ("dedup", "near_duplicates", "semantic_duplicates"),
    "split": ("split",),
}


@dataclass(frozen=True)
class Line:
    """A line of a funnel; its bar begins at `left` percent of the scale and is `width` percent wide."""

    kind: Kind
    step: str
    text: str
    count: str
    share: str
    left: float
    width: float


def funnel(source: Mapping[str, Any]) -> list[Line]:
    """Lay out the account of one source, as `summary.json` holds it.

    The bars are on the scale of what was read, and from the line that counts rows on that of the rows made.
    """
    unit, rejected = source["unit"], source["rejected"]
    lines = _Lines(source["read"])
    lines.start("read", plural(source["read"], "record"))
    lines.losses("read", rejected)
    if unit != "row":
        lines.rescale(source["units"])
        lines.start("units", f"{plural(source['units'], unit)} in them")
    lines.losses("convert", rejected)
    if lines.left != source["rows"]:
        made_of = plural(source["used"], unit if unit != "row" else "record")
        lines.rescale(source["rows"])
        lines.start("converted", f"{plural(source['rows'], 'row')} made of {made_of}")
    for step in sorted(rejected, key=step_order):
        if step not in _FIRST:
            lines.losses(step, rejected)
    lines.loss("mixing", "not taken into the mixture", source["sampled_out"])
    lines.kept("train", "to train on", source["train"])
    lines.kept("validation", "held out for validation", source["validation"], source["train"])
    return lines.made


class _Lines:
    """Builds lines while it keeps what is left; every bar is a part of `scale`."""

    def __init__(self, scale: int) -> None:
        self.made: list[Line] = []
        self.rescale(scale)

    def rescale(self, scale: int) -> None:
        self.scale = self.left = scale

    def _line(self, kind: Kind, step: str, text: str, number: int, sign: str, left: int) -> None:
        percents = [round(100 * part / self.scale, 3) if self.scale else 0.0 for part in (left, number)]
        share = percent(number, self.scale)
        self.made.append(Line(kind, step, text, sign + count(number), share, percents[0], percents[1]))

    def start(self, step: str, text: str) -> None:
        self._line("start", step, text, self.scale, "", 0)

    def losses(self, step: str, rejected: Mapping[str, Mapping[str, int]]) -> None:
        reasons = by_count(rejected.get(step, {}))
        shown = REASONS if len(reasons) > REASONS + 1 else len(reasons)  # a line for one other says no less itself
        for reason in list(reasons)[:shown]:
            self.loss(step_name(step), reason, reasons[reason])
        others = list(reasons.values())[shown:]
        self.loss(step_name(step), f"{len(others)} other reasons", sum(others))

    def loss(self, step: str, text: str, number: int) -> None:
        if number:
            self.left -= number
            self._line("loss", step, text, number, "−", self.left)

    def kept(self, step: str, text: str, number: int, before: int = 0) -> None:
        if number or step == "train":
            self._line("left", step, text, number, "", before)


def overview(source: Mapping[str, Any]) -> dict[str, int]:
    """Return a source's counts for the table of all sources: losses in groups, and what is left."""
    rejected = source["rejected"]
    grouped = {name: sum(sum(rejected.get(step, {}).values()) for step in steps) for name, steps in COLUMNS.items()}
    known = {step for steps in COLUMNS.values() for step in steps}
    grouped["filtered"] += sum(sum(counts.values()) for step, counts in rejected.items() if step not in known)
    return {
        "read": source["read"],
        "rows": source["rows"],
        **grouped,
        "sampled_out": source["sampled_out"],
        "validation": source["validation"],
        "train": source["train"],
        "repeats": source["train_repeats"],
    }
