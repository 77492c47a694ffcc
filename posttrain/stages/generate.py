"""What determines the rows that models write: entries, models by name, prompts, and the rows they start from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posttrain.stages.external import External, external

if TYPE_CHECKING:
    from posttrain.recipe.schema import Data, Recipe

ANSWERS = "answers"  # a folder beside the stages: answers outlive the stage that asked for them
_MODELS = ("teacher", "judge", "reward")
# What else a section says is where and how the model is asked, which the keys of the answers do not hold either.
_IDENTITY = ("model", "revision", "tokenizer", "max_length", "trust_remote_code")


def generate_part(recipe: Recipe) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """Return the `Stage.part` of the generate stage."""

    def part(resolved: Mapping[str, Any]) -> dict[str, Any]:
        from posttrain.data.generate.build import prompt_files

        models = {
            name: {key: resolved[name][key] for key in _IDENTITY if key in resolved[name]}
            for name in _MODELS
            if resolved[name] is not None
        }
        return {
            "generate": resolved["generate"],
            "seed": resolved["seed"],
            "prompts": dict(prompt_files(recipe.generate)),
            **models,
        }

    return part


def generate_files(recipe: Recipe) -> list[External]:
    """Return the sources that entries start from, and the models and tokenizers that are folders."""
    from posttrain.data.sources import entry_options

    found = []
    for index, entry in enumerate(recipe.generate):
        if entry.source is None:
            continue
        key, options = f"generate.{index}.source.path", entry_options(entry.source)
        if options.aligned_files is None:
            found.append(external(key, options.path, bare=False))
        else:
            found += [External(f"{key}.{language}", str(f), f) for language, f in options.aligned_files.items()]
    for name in _MODELS:
        section = getattr(recipe, name)
        for key in ("model", "tokenizer"):
            written = getattr(section, key, None)
            # A name that is no folder is a server's or the hub's.
            if written is not None and Path(written).expanduser().is_dir():
                found.append(external(f"{name}.{key}", written))
    return found


def generate_problems(recipe: Recipe, world_size: int) -> list[str]:
    """Return what is wrong with the entries that their types cannot show."""
    from posttrain.data.generate.build import entry_problems

    problems = [problem for entry in recipe.generate for problem in entry_problems(entry)]
    if recipe.cluster is not None and find_spec("datatrove") is None:
        problems.append(
            "cluster: datatrove, which spreads generation over tasks, is not installed; "
            "pip install -c constraints.txt -e '.[cluster]', or leave the section out"
        )
    return problems


def uses_generated(data: Data) -> bool:
    """Say whether an entry of `data` takes rows of the generate stage."""
    from posttrain.data.sources import entry_options

    return any(entry_options(entry).source == "generated" for entry in data.sft)


def with_folders(data: Data, folder: Path | None) -> Data:
    """Return the section with the folder of each `generated` entry in place of the name that the recipe gives."""
    from dataclasses import replace

    from posttrain.data.sources import Source, entry_options

    if folder is None:
        return data

    def found(entry: Source) -> Source:
        if entry.source != "generated":
            return entry
        return replace(entry, path=str(folder / entry.path), name=entry.name or entry.path)

    return replace(data, sft=[found(entry_options(entry)) for entry in data.sft])
