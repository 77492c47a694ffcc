"""The rows of `posttrain show` as one page that needs nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from posttrain.train.preview import Cell, Section, Shown

_STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; margin: 0;
  color: #1c2430; background: #f4f5f7; }
main { max-width: 1080px; margin: 0 auto; padding: 32px 24px 64px; }
h1 { font-size: 26px; margin: 0 0 4px; }
p.about { color: #566072; margin: 0 0 16px; }
.key span { margin-right: 20px; font-size: 14px; }
.key i { font-style: normal; padding: 1px 8px; border-radius: 3px; margin-right: 6px; }
article { background: #fff; border: 1px solid #dde1e7; border-radius: 8px; margin: 20px 0; overflow: hidden; }
header { padding: 12px 18px; border-bottom: 1px solid #e6e9ee; display: flex; gap: 8px 20px; flex-wrap: wrap;
  font-size: 14px; color: #566072; }
header b { color: #1c2430; } header code { font-size: 13px; }
h2 { font-size: 13px; letter-spacing: .04em; text-transform: uppercase; color: #566072; margin: 0;
  padding: 12px 18px 0; }
pre { margin: 0; padding: 12px 18px 16px; white-space: pre-wrap; overflow-wrap: anywhere; tab-size: 4;
  font: 14px/1.75 ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; }
.n { color: #4d5667; background: #f3f4f6; } .n.o { background: #e8eaee; }
.t { color: #0b3d24; background: #c9efd7; } .t.o { background: #a6e0bd; }
.s { color: #7a2e8e; font-weight: 600; } .t.s { color: #5b1a6e; }
pre span { border-radius: 2px; padding: 1px 0; }
.refused { padding: 12px 18px; color: #9c2b21; margin: 0; }
"""
_KEY = (
    ("t", "trained: these tokens have a loss"),
    ("n", "context: read, and not trained"),
    ("n s", "special token"),
)


def _cell(cell: Cell, number: int) -> str:
    kind = ("t" if cell.trained else "n") + (" s" if cell.special else "") + (" o" if number % 2 else "")
    text = escape(cell.text).replace("\n", "↵\n")
    return f'<span class="{kind}" title="{" ".join(map(str, cell.ids))}">{text}</span>'


def _section(section: Section) -> str:
    heading = f"<h2>{escape(section.title)} · {section.tokens:,} tokens</h2>" if section.title else ""
    return f"{heading}<pre>{''.join(_cell(cell, number) for number, cell in enumerate(section.cells))}</pre>"


def _row(row: Shown) -> str:
    if row.refusal is not None:
        counts, body = "", f'<p class="refused">Refused: {escape(row.refusal)}</p>'
    else:
        cut = " · cut to max_length" if row.cut else ""
        counts = f"<span><b>{row.tokens:,}</b> tokens · <b>{row.trained:,}</b> trained{cut}</span>"
        body = "".join(map(_section, row.sections))
    about = f"<span>{escape(row.source)} · {escape(row.split)}</span><code>{escape(row.id)}</code>{counts}"
    return f"<article><header>{about}</header>{body}</article>"


def page(title: str, about: str, rows: Sequence[Shown]) -> str:
    """Return the page as HTML. Every text of a row is escaped, and hovering over a token shows its id."""
    key = "".join(f'<span><i class="{kind}">abc</i>{text}</span>' for kind, text in _KEY)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        f'<h1>{escape(title)}</h1>\n<p class="about">{escape(about)}</p>\n<p class="key">{key}</p>\n'
        + "\n".join(map(_row, rows))
        + "\n</main>\n</body>\n</html>\n"
    )
