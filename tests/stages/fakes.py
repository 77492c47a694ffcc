"""A chain of small stages that write text files; also a program, to be run in processes of its own.

python fakes.py OUTPUT [--rate R] [--force STAGE] [--from STAGE] [--until STAGE] [--slow STAGE SECONDS]
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from posttrain.errors import Interrupted, UserError
from posttrain.recipe.schema import Launch, Model, Recipe, Sft
from posttrain.stages.context import Context
from posttrain.stages.external import External, external
from posttrain.stages.graph import Stage, sections


@dataclass(frozen=True)
class FakeLoaded:
    """A loaded recipe without a file."""

    recipe: Recipe
    name: str = "fake.yaml"
    overrides: tuple[str, ...] = ()
    secret: str | None = None

    @property
    def arguments(self) -> tuple[str, ...]:
        """What follows a subcommand on the command line."""
        return (self.name, *self.overrides)

    def resolved(self, show_secrets: bool = False) -> dict[str, Any]:
        """Return it as plain values, with the secret as a setting of the trainer."""
        plain = dataclasses.asdict(self.recipe)
        if self.secret is not None:
            plain["sft"]["trainer"]["hub_token"] = self.secret if show_secrets else "${oc.env:TOKEN}"
        return plain


def loaded(output: Path, base: str = "org/model", seed: int = 42, **sft: Any) -> FakeLoaded:
    """Return a recipe with the output folder and SFT settings given."""
    recipe = Recipe(
        name="fake", seed=seed, output_dir=str(output), model=Model(base=base), sft=Sft(**sft), launch=Launch()
    )
    return FakeLoaded(recipe)


@dataclass
class FakeStages:
    """`rows` -> `train` -> `tune`; the last two train, and count steps in a file so that they can be resumed.

    `built` lists the builds as `stage` or `stage+` where it was resumed. `salt` makes outputs differ between builds
    of one fingerprint. `hooks` are called in the middle of a build.
    """

    built: list[str] = field(default_factory=list)
    salt: str = ""
    hooks: dict[str, Callable[[Context], None]] = field(default_factory=dict)

    def chain(self) -> list[Stage]:
        """Return the stages."""
        return [
            Stage(name="rows", folder="data", part=sections("seed"), build=self.rows),
            Stage(
                name="train",
                folder="sft",
                inputs=("rows",),
                part=sections("model", "sft", "seed"),
                build=self.steps,
                files=base_model,
                check=batch_is_even,
                trains=True,
            ),
            Stage(
                name="tune",
                folder="instruct",
                inputs=("train", "rows"),
                part=sections("seed"),
                build=self.steps,
                trains=True,
            ),
        ]

    def rows(self, context: Context) -> None:
        """Write rows."""
        self.built.append("rows")
        (context.folder / "rows.txt").write_text(f"rows of seed {context.seed}{self.salt}\n")
        self._hook(context)

    def steps(self, context: Context) -> None:
        """Write what was read, and the number of steps."""
        self.built.append(context.stage + ("+" if context.resume else ""))
        counter = context.work / f"step-{context.rank}"
        first = int(counter.read_text()) if context.resume and counter.exists() else 0
        for step in range(first, 3):
            counter.write_text(str(step + 1))
            if step == 1:
                self._hook(context)
        read = "".join(path.read_text() for folder in context.inputs.values() for path in folder.glob("[mr]o*.txt"))
        (context.folder / f"model-{context.rank}.txt").write_text(f"{context.stage} of {read}")
        if context.rank == 0:
            (context.folder / "log.txt").write_text(f"{time.time()} from step {first}\n")
            context.leave_out_of_digest("log.*")
        context.report({"first": first})

    def _hook(self, context: Context) -> None:
        if context.stage in self.hooks:
            self.hooks[context.stage](context)


def base_model(recipe: Recipe) -> list[External]:
    """Return the base model."""
    return [external("model.base", str(recipe.model.base))]


def batch_is_even(recipe: Recipe, world_size: int) -> list[str]:
    """Refuse an odd batch size."""
    assert recipe.sft is not None
    return ["sft.global_batch_size: it is odd"] if recipe.sft.global_batch_size % 2 else []


def main(arguments: list[str]) -> int:
    """Run the chain, and print what was built in this process on the last line."""
    from posttrain.stages import run

    parser = argparse.ArgumentParser()
    parser.add_argument("output", type=Path)
    parser.add_argument("--rate", type=float, default=0.1)
    parser.add_argument("--force", action="append", default=[])
    parser.add_argument("--from", dest="from_")
    parser.add_argument("--until")
    parser.add_argument("--salt", default="")
    parser.add_argument("--slow", nargs=2, action="append", default=[])
    parser.add_argument("--refuse", default="")
    options = parser.parse_args(arguments)

    def sleep(seconds: float) -> Callable[[Context], None]:
        def hook(context: Context) -> None:
            print(f"in {context.stage}", flush=True)
            time.sleep(seconds)

        return hook

    def refuse(context: Context) -> None:
        raise UserError("there is nothing to train on")

    hooks: Mapping[str, Callable[[Context], None]] = {name: sleep(float(seconds)) for name, seconds in options.slow}
    stages = FakeStages(salt=options.salt, hooks={**hooks, **({options.refuse: refuse} if options.refuse else {})})
    try:
        run(
            loaded(options.output, learning_rate=options.rate),
            from_=options.from_,
            until=options.until,
            force=options.force,
            stages=stages.chain(),
        )
    except UserError as error:
        print(f"refused: {error}")
        return 2
    except Interrupted as error:
        print(f"interrupted: {error}")
        return error.exit_code
    finally:
        print(f"rank {os.environ.get('RANK', '-')} built {' '.join(stages.built)}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
