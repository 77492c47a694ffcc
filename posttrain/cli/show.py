"""`posttrain show`: rows as the model sees them, token by token, with what is trained told apart."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from posttrain.cli.options import OverridesArgument, RecipeArgument
from posttrain.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from posttrain.recipe.schema import Recipe
    from posttrain.train.parts import Settings
    from posttrain.train.preview import Section, Shown

# Two shades in turn, so that the tokens can be told from each other.
_BACKGROUNDS = {True: ("green3", "spring_green3"), False: ("default", "grey23")}
_COLOURS = {True: "black", False: "default"}
_SPECIAL = {True: "bold magenta4", False: "bold magenta"}
_OPEN, _CLOSE = "‹", "›"


class RowKind(str, Enum):
    """The sets of a recipe."""

    sft = "sft"
    preference = "preference"


def show(
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    split: Annotated[
        RowKind | None, typer.Option("--split", help="The SFT chats or the preference pairs; by default what there is.")
    ] = None,
    rows: Annotated[int, typer.Option("--rows", min=1, metavar="N", help="How many rows.")] = 5,
    row_id: Annotated[str | None, typer.Option("--id", metavar="ID", help="Only the row of this id.")] = None,
    source: Annotated[str | None, typer.Option("--source", metavar="NAME", help="Only rows of this source.")] = None,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write the rows as a page instead of printing them.")
    ] = None,
) -> None:
    """Show rows token by token, with the tokens that are trained in colour.

    Where there is no colour they stand between ‹ and ›.
    """
    from posttrain.recipe import load

    loaded = load(recipe, list(overrides or ()))
    settings = _settings(loaded.recipe, split)
    data, tokenizer = _inputs(loaded.recipe, settings.kind, [recipe, *(overrides or ())])
    shown = _preview(loaded.recipe, settings, data, tokenizer, rows, row_id, source)
    if html is not None:
        from posttrain.cli.show_page import page

        limits = f"max_length {settings.max_length:,}"
        about = f"{loaded.recipe.name}: {settings.kind} rows as the model sees them, {limits}"
        try:
            html.write_text(page(f"{loaded.recipe.name} · {settings.kind}", about, shown), encoding="utf-8")
        except OSError as error:
            raise UserError(f"--html {html}: cannot be written: {error.strerror}; give another file") from error
        print(f"{len(shown)} row{'s' if len(shown) > 1 else ''} in {html}")
        return
    from rich.console import Console

    _print(Console(), shown)


def _settings(recipe: Recipe, split: RowKind | None) -> Settings:
    from posttrain.train.parts import Settings

    kind = split.value if split is not None else "sft" if recipe.sft is not None else "preference"
    if kind == "sft" and recipe.sft is not None:
        return Settings("sft", recipe.sft.max_length, recipe.sft.loss_on)
    if kind == "preference" and recipe.dpo is not None:
        return Settings("preference", recipe.dpo.max_length)
    section = "sft" if kind == "sft" else "dpo"
    raise UserError(f"show: the recipe has no section {section}, so no {kind} row is trained on")


def _inputs(recipe: Recipe, kind: str, arguments: Sequence[str]) -> tuple[Path, str | Path]:
    """Return where the rows and the tokenizer are."""
    output = Path(recipe.output_dir)
    model = recipe.model
    problems = []
    data, base = output / "data", output / "base"
    if not (data / kind / "train.parquet").is_file():
        problems.append(f"there are no {kind} rows in {data}; build them with {_command('data', arguments)}")
    if model.new is not None and not base.is_dir():
        problems.append(
            f"the tokenizer is trained with the base model, and {base} is not there yet; "
            f"build it with {_command('cpt', arguments)}"
        )
    if problems:
        raise UserError([f"show: {problem}" for problem in problems])
    return data, base if model.new is not None else model.tokenizer or model.base or ""


def _command(stage: str, arguments: Sequence[str]) -> str:
    return shlex.join(["posttrain", stage, *arguments])


def _preview(
    recipe: Recipe,
    settings: Settings,
    data: Path,
    tokenizer_path: str | Path,
    count: int,
    row_id: str | None,
    source: str | None,
) -> list[Shown]:
    from posttrain.chat import Encoder
    from posttrain.train.preview import find_rows, preview
    from posttrain.train.tokenizer import equip, load_tokenizer

    found = list(find_rows(data, settings.kind, count, row_id=row_id, source=source))
    tokenizer = load_tokenizer(tokenizer_path, recipe.model)
    encoder = Encoder(tokenizer, equip(tokenizer, recipe.model))
    return [preview(row, split, settings, encoder, tokenizer) for split, row in found]


def _print(console: Console, rows: Iterable[Shown]) -> None:
    coloured = console.color_system is not None and not console.no_color
    options: dict[str, Any] = {"highlight": False, "markup": False, "soft_wrap": True}
    for row in rows:
        about = f"{row.source}  {row.split}  {row.id}"
        if row.refusal is not None:
            console.print(f"{about}  refused: {row.refusal}\n", style="bold", **options)
            continue
        cut = ", cut to max_length" if row.cut else ""
        console.print(f"{about}  {row.tokens:,} tokens, {row.trained:,} trained{cut}", style="bold", **options)
        for section in row.sections:
            if section.title:
                console.print(f"{section.title}, {section.tokens:,} tokens:", style="italic", **options)
            console.print(render(section, coloured), **options)
        console.print()


def render(section: Section, coloured: bool) -> Text:
    """Return a stretch of a row for the terminal: trained tokens in colour, or between marks where there is none."""
    from rich.text import Text

    text = Text()
    before = False
    for number, cell in enumerate(section.cells):
        if not coloured and cell.trained != before:
            text.append(_OPEN if cell.trained else _CLOSE)
        before = cell.trained
        colour = (_SPECIAL if cell.special else _COLOURS)[cell.trained]
        style = f"{colour} on {_BACKGROUNDS[cell.trained][number % 2]}" if coloured else ""
        text.append(cell.text.replace("\n", "↵\n"), style=style)
    if before and not coloured:
        text.append(_CLOSE)
    return text
