"""The pictures of the report, as SVG that takes its colours and its typeface from the page.

Colours are placeholders that become CSS variables, so that one picture serves light and dark. Equal data give equal
bytes: matplotlib names its clip paths after a salt, and is told to leave out its version and the date.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from posttrain.data.report.words import count

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes

_INK, _MUTED, _GRID, _ACCENT, _SURFACE = (f"#0{number}0{number}0{number}" for number in range(1, 6))
_VARIABLES = {_INK: "ink", _MUTED: "muted", _GRID: "grid", _ACCENT: "accent", _SURFACE: "surface"}
_STYLE = {
    "axes.edgecolor": _GRID,
    "axes.labelcolor": _MUTED,
    "axes.labelsize": 7.5,
    "axes.linewidth": 0.6,
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.size": 7.5,
    "grid.color": _GRID,
    "grid.linewidth": 0.5,
    "svg.fonttype": "none",
    "text.color": _INK,
    "xtick.color": _GRID,
    "xtick.labelcolor": _MUTED,
    "xtick.labelsize": 7.5,
    "xtick.major.size": 2.5,
    "xtick.major.width": 0.6,
    "ytick.labelcolor": _MUTED,
    "ytick.labelsize": 7.5,
    "ytick.left": False,
}
LONGEST = 100_000  # characters; what is longer is counted in the last bin
_BINS_A_DECADE = 8


@contextmanager
def _drawing(name: str, label: str, width: float, height: float, into: list[str]) -> Iterator[Axes]:
    """Give axes of a size in inches to draw on, and append the picture to `into`."""
    from matplotlib import style
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    with style.context(["default", {**_STYLE, "svg.hashsalt": name}]):
        figure = Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02))
        yield figure.subplots()
        file = io.StringIO()
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    into.append(_inline(file.getvalue(), label))


def _inline(svg: str, label: str) -> str:
    """Turn an SVG document into an element of the page: no ids but those it refers to, no style sheet of its own."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<style .*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", svg)
    svg = re.sub(r"font-family: [^;\"]*;? ?", "", svg)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, f"var(--{variable})")
    svg = re.sub(r"(\d\.\d\d)\d+", r"\1", svg)
    view = svg.partition('viewBox="')[2].partition('"')[0]
    svg = f'<svg viewBox="{view}" role="img" aria-label="{_escape(label)}">' + svg[svg.index(">") + 1 :]
    return re.sub(r"\s*\n\s*", "\n", svg).strip()


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")


def length_histogram(name: str, label: str, filled: np.ndarray, outlined: np.ndarray, dashed: np.ndarray | None) -> str:
    """Draw lengths in characters on a logarithmic axis from 1 to `LONGEST`, each as a share of its rows.

    Args:
        name: Tells this picture apart from the others of the page.
        label: What it shows, for those who cannot see it.
        filled: The lengths drawn in the accent: the answers.
        outlined: Those drawn as a line: the user's turns.
        dashed: Those drawn as a dashed line in the accent, if any: the rejected answers.
    """
    import numpy as np

    edges = np.logspace(0, np.log10(LONGEST), int(np.log10(LONGEST)) * _BINS_A_DECADE + 1)

    def shares(lengths: np.ndarray) -> np.ndarray:
        return np.histogram(np.clip(lengths, 1, LONGEST), edges)[0] / max(len(lengths), 1)

    made: list[str] = []
    with _drawing(name, label, 2.9, 1.3, made) as axes:
        axes.stairs(shares(filled), edges, fill=True, color=_ACCENT, alpha=0.55, linewidth=0)
        axes.stairs(shares(outlined), edges, color=_INK, linewidth=0.9)
        if dashed is not None:
            axes.stairs(shares(dashed), edges, color=_ACCENT, linewidth=1.1, linestyle=(0, (3, 1.5)))
        axes.set_xscale("log")
        axes.set_xlim(1, LONGEST)
        _decades(axes)
        axes.set_yticks([])
        axes.set_ylim(bottom=0)
    return made[0]


def _decades(axes: Axes) -> None:
    axes.set_xticks([10**power for power in range(6)], ["1", "10", "100", "1k", "10k", "100k"])
    axes.minorticks_off()
    axes.grid(axis="x")
    axes.set_axisbelow(True)


def margin_histogram(name: str, label: str, margins: np.ndarray) -> str:
    """Draw the margins of preference pairs: a bar for each value where there are few, bins otherwise."""
    import numpy as np

    made: list[str] = []
    with _drawing(name, label, 4.6, 2.2, made) as axes:
        values, numbers = np.unique(margins, return_counts=True)
        if len(values) <= 12:
            axes.bar(np.arange(len(values)), numbers, 0.72, color=_ACCENT, alpha=0.8, linewidth=0)
            axes.set_xticks(np.arange(len(values)), [f"{value:g}" for value in values])
            for place, number in enumerate(numbers):
                axes.text(place, number, count(number), ha="center", va="bottom", fontsize=7, color=_MUTED)
            axes.set_xlim(-0.7, max(len(values), 4) - 0.3)
            axes.set_yticks([])
        else:
            axes.hist(margins, 40, color=_ACCENT, alpha=0.8, linewidth=0)
            _count_axis(axes)
        axes.set_xlabel("margin, in the source's own scale")
    return made[0]


def ratio_histogram(name: str, label: str, chosen: np.ndarray, rejected: np.ndarray) -> str:
    """Draw how many times longer the chosen answer is, in the accent where it is as long or longer."""
    import numpy as np

    logs = np.clip(np.log2(np.maximum(chosen, 1) / np.maximum(rejected, 1)), -3, 3)
    edges = np.linspace(-3, 3, 49)
    numbers, _ = np.histogram(logs, edges)
    made: list[str] = []
    with _drawing(name, label, 4.6, 2.2, made) as axes:
        longer = edges[:-1] >= 0
        axes.bar(edges[:-1][~longer], numbers[~longer], 0.115, align="edge", color=_MUTED, alpha=0.55, linewidth=0)
        axes.bar(edges[:-1][longer], numbers[longer], 0.115, align="edge", color=_ACCENT, alpha=0.8, linewidth=0)
        axes.axvline(0, color=_INK, linewidth=0.8)
        axes.set_xticks(range(-3, 4), ["≤ ⅛", "¼", "½", "equal", "2×", "4×", "≥ 8×"])
        axes.set_xlim(-3, 3)
        _count_axis(axes)
        axes.set_xlabel("length of the chosen answer over that of the rejected one")
    return made[0]


def similarity_histogram(name: str, label: str, bins: Sequence[int]) -> str:
    """Draw the similarities of near-duplicates, counted in equal bins from 0 to 1, from the first bin that has any."""
    import numpy as np

    edges = np.linspace(0, 1, len(bins) + 1)
    first = next(number for number, value in enumerate(bins) if value)
    first = min(first, len(bins) - 10)
    made: list[str] = []
    with _drawing(name, label, 4.6, 2.0, made) as axes:
        axes.bar(edges[first:-1], bins[first:], 0.9 / len(bins), align="edge", color=_ACCENT, alpha=0.8, linewidth=0)
        axes.set_xlim(float(edges[first]), 1)
        _count_axis(axes)
        axes.set_xlabel("estimated Jaccard similarity of the prompts")
    return made[0]


def _count_axis(axes: Any) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: count(value)))
    axes.grid(axis="y")
    axes.set_axisbelow(True)
