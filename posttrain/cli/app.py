"""The command `posttrain` and its subcommands."""

from __future__ import annotations

from typing import Annotated

import typer

from posttrain.cli.check import check
from posttrain.cli.evaluate import evaluate
from posttrain.cli.options import show_version
from posttrain.cli.plan import plan
from posttrain.cli.recipes import recipes
from posttrain.cli.release import release
from posttrain.cli.run import cpt, data, dpo, generate, quantize, ref_logps, run, sft, tokenize
from posttrain.cli.show import show
from posttrain.cli.verify import verify

app = typer.Typer(
    name="posttrain",
    help="Turn a base language model into a released chat model, from one recipe.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=show_version, is_eager=True)
    ] = False,
) -> None:
    """Turn a base language model into a released chat model, from one recipe."""


for command in (
    run,
    generate,
    data,
    tokenize,
    cpt,
    sft,
    ref_logps,
    dpo,
    quantize,
    evaluate,
    release,
    plan,
    check,
    show,
    verify,
    recipes,
):
    app.command()(command)
