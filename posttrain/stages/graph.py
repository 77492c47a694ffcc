"""The chain of stages of a recipe: what each reads, and what of the recipe determines it.

A new stage is one `Stage` in `chain`, one function in `builds` and, where it has preconditions, one in `checks`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posttrain.chat.template import builtin_templates
from posttrain.stages import builds, checks
from posttrain.stages.evaluate import INPUTS as MEASURED
from posttrain.stages.evaluate import evaluate_files, evaluate_part, evaluate_problems
from posttrain.stages.external import External, external
from posttrain.stages.generate import generate_files, generate_part, generate_problems, uses_generated
from posttrain.stages.quantize import made_by, quantize_files, quantize_part, quantize_problems, uses_rows
from posttrain.stages.release import CHAIN, release_files, release_part, release_problems
from posttrain.stages.texts import is_mixture, mixture_part, text_files
from posttrain.stages.tokens import counts_tokens, token_part, tokenizer_files, tokenizer_keys
from posttrain.train.reference import PRECOMPUTED, reference_kind

if TYPE_CHECKING:
    from posttrain.recipe.schema import Recipe
    from posttrain.stages.context import Context

# Keys of a training section that leave the trained weights as they are, so that changing one rebuilds nothing.
# (`name`, `output_dir`, `launch` and `report_to` are in no stage's part to begin with.)
NO_EFFECT_ON_OUTPUT = {
    "logging_steps": "how often figures are printed",
    "eval_steps": "evaluation changes neither weights nor the order of the rows",
    "per_device_eval_batch_size": "evaluation averages over rows, whatever their grouping",
    "save_steps": "a run resumed from a checkpoint goes on as if it had not stopped",
    "save_total_limit": "how many checkpoints are kept while training",
}
TRAINING_SECTIONS = ("cpt", "sft", "dpo")


def no_files(recipe: Recipe) -> list[External]:
    """Read nothing from outside."""
    return []


def no_problems(recipe: Recipe, world_size: int) -> list[str]:
    """Have no preconditions."""
    return []


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One step from input folders to one output folder.

    Attributes:
        name: What the command line calls it.
        folder: Its folder in the recipe's `output_dir`.
        inputs: Names of the stages whose folders it reads.
        part: Picks what determines the output from the resolved recipe.
        build: Writes the output. In a stage that trains it is called in every process, otherwise in rank 0 only.
        files: The inputs from outside.
        check: Problems that are known before anything is built, given the number of processes that will train.
        trains: Whether it runs under accelerate's launcher, as all that runs the model does; it can be resumed then.
        resumes: Whether it goes on from what an interrupted build of it left, though it does not train.
        keeps: Whether what it has built is kept when it ends with an error of the user's: it was dear.
        version: Raised when the code comes to mean something else by the same recipe.
    """

    name: str
    folder: str
    inputs: tuple[str, ...] = ()
    part: Callable[[Mapping[str, Any]], dict[str, Any]]
    build: Callable[[Context], None]
    files: Callable[[Recipe], list[External]] = no_files
    check: Callable[[Recipe, int], list[str]] = no_problems
    trains: bool = False
    resumes: bool = False
    keeps: bool = False
    version: int = 1


def sections(*names: str) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """Return a `Stage.part` that takes these sections whole, less `NO_EFFECT_ON_OUTPUT`."""

    def part(resolved: Mapping[str, Any]) -> dict[str, Any]:
        picked = {name: resolved[name] for name in names if name in resolved}
        for name in TRAINING_SECTIONS:
            if isinstance(picked.get(name), Mapping):
                picked[name] = {key: value for key, value in picked[name].items() if key not in NO_EFFECT_ON_OUTPUT}
        return picked

    return part


def model_files(recipe: Recipe) -> list[External]:
    """Return the base model, its tokenizer and the chat template."""
    model = recipe.model
    found = [
        external(f"model.{key}", written)
        for key, written in (("base", model.base), ("tokenizer", model.tokenizer))
        if written is not None
    ]
    return found + template_file(recipe)


def template_file(recipe: Recipe) -> list[External]:
    """Return the chat template, unless it is the tokenizer's own."""
    written = recipe.model.chat_template
    if written == "tokenizer":
        return []
    path = builtin_templates().get(written) or Path(written).expanduser()
    return [External("model.chat_template", written, path)]


def token_files(recipe: Recipe) -> list[External]:
    """Return what turns rows into tokens, as far as it is no stage's output: the tokenizer's files and the template."""
    return tokenizer_files(recipe.model) + template_file(recipe)


def data_files(recipe: Recipe) -> list[External]:
    """Return the sources of both sets."""
    from posttrain.data.sources import entry_options

    found = []
    for name in ("sft", "preference"):
        for index, entry in enumerate(getattr(recipe.data, name)):
            key, options = f"data.{name}.{index}.path", entry_options(entry)
            if options.source == "generated":  # an input of the stage, and no file from outside
                continue
            aligned = options.aligned_files
            if aligned is None:
                found.append(external(key, options.path, bare=False))
            else:  # one path stands for two files
                found += [External(f"{key}.{language}", str(file), file) for language, file in aligned.items()]
    if recipe.data.decontaminate is not None:
        for index, eval_set in enumerate(recipe.data.decontaminate.against):
            found.append(external(f"data.decontaminate.against.{index}.path", eval_set.path, bare=False))
    if (semantic := recipe.data.duplicates.semantic) is not None:
        found.append(external("data.duplicates.semantic.model", semantic.model))
    return found + (tokenizer_files(recipe.model) if counts_tokens(recipe) else [])


def data_part(recipe: Recipe) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """Return the `Stage.part` of the data stage: its section, and the name of the tokenizer if it counts tokens."""
    keys = tokenizer_keys(recipe.model) if counts_tokens(recipe) else []

    def part(resolved: Mapping[str, Any]) -> dict[str, Any]:
        data = {key: value for key, value in resolved["data"].items() if key != "num_proc"}
        model = {"model": {key: resolved["model"][key] for key in keys}} if keys else {}
        return {"data": data, "seed": resolved["seed"], **model}

    return part


def ref_logps_part(resolved: Mapping[str, Any]) -> dict[str, Any]:
    """Pick what reference log-probabilities depend on besides checkpoint and pairs: the precision above all.

    Packed rows and padded batches give the same up to rounding.
    """
    dpo = resolved["dpo"]
    settings = {key: dpo[key] for key in ("quantization", "shared_prefix")} | {"lora": dpo["lora"] is not None}
    return {"model": resolved["model"], "dpo": {**settings, "trainer": {"ld_alpha": dpo["trainer"].get("ld_alpha")}}}


def token_stages(recipe: Recipe, inputs: tuple[str, ...]) -> list[Stage]:
    """Return the stages that turn the rows of each set into tokens.

    They are two, so that a change of `dpo.max_length` leaves SFT as it is.
    """
    stages = []
    if recipe.sft is not None and recipe.data.sft:
        stages.append(
            Stage(
                name="tokenize-sft",
                folder="tokens-sft",
                inputs=inputs,
                part=token_part(recipe, "sft"),
                files=token_files,
                check=checks.chat_template,
                build=builds.tokenize_sft,
                resumes=True,
            )
        )
    if recipe.dpo is not None and recipe.data.preference:
        stages.append(
            Stage(
                name="tokenize-preference",
                folder="tokens-preference",
                inputs=inputs,
                part=token_part(recipe, "dpo"),
                files=token_files,
                build=builds.tokenize_preference,
                resumes=True,
            )
        )
    return stages


def chain(recipe: Recipe) -> list[Stage]:
    """Return the stages that a recipe asks for, each after its inputs."""
    stages: list[Stage] = []

    def present(*names: str) -> tuple[str, ...]:
        have = {stage.name for stage in stages}
        return tuple(name for name in names if name in have)

    if recipe.generate:
        stages.append(
            Stage(
                name="generate",
                folder="generated",
                part=generate_part(recipe),
                files=generate_files,
                check=generate_problems,
                build=builds.generate,
                resumes=True,
                keeps=True,
            )
        )
    if recipe.data.sft or recipe.data.preference:  # first, so that bad rows are found before a model is trained
        stages.append(
            Stage(
                name="data",
                folder="data",
                inputs=present("generate") if uses_generated(recipe.data) else (),
                part=data_part(recipe),
                files=data_files,
                check=checks.readable_sources,
                build=builds.data,
                resumes=True,
            )
        )
    from_cpt = recipe.model.new is not None  # a new model's tokenizer is trained with it
    if not from_cpt:
        stages += token_stages(recipe, present("data"))
    if recipe.cpt is not None:
        mixture = is_mixture(recipe)
        if mixture:
            stages.append(
                Stage(
                    name="tokenize-cpt",
                    folder="tokens-cpt",
                    part=mixture_part(recipe),
                    files=lambda recipe: text_files(recipe) + tokenizer_files(recipe.model),
                    build=builds.tokenize_cpt,
                    resumes=True,
                    keeps=True,
                )
            )
        stages.append(
            Stage(
                name="cpt",
                folder="base",
                inputs=present("tokenize-cpt"),
                part=sections("model", "cpt", "seed"),
                files=lambda recipe: model_files(recipe) + ([] if mixture else text_files(recipe)),
                check=checks.training("cpt"),
                build=builds.cpt,
                trains=True,
            )
        )
    if from_cpt:
        stages += token_stages(recipe, present("cpt", "data"))
    if recipe.sft is not None:
        stages.append(
            Stage(
                name="sft",
                folder="sft",
                inputs=present("cpt", "tokenize-sft"),
                part=sections("model", "sft", "seed"),
                files=model_files,
                check=checks.training("sft"),
                build=builds.sft,
                trains=True,
            )
        )
    if recipe.dpo is not None and reference_kind(recipe.dpo) == PRECOMPUTED:
        stages.append(
            Stage(
                name="ref-logps",
                folder="ref_logps",
                inputs=present("cpt", "sft", "tokenize-preference"),
                part=ref_logps_part,
                files=model_files,
                check=checks.local_model,
                build=builds.ref_logps,
                trains=True,
            )
        )
    if recipe.dpo is not None:
        stages.append(
            Stage(
                name="dpo",
                folder="instruct",
                # the base too: an adapter from SFT is put onto it
                inputs=present("cpt", "sft", "tokenize-preference", "ref-logps"),
                part=sections("model", "dpo", "seed"),
                files=model_files,
                check=checks.training("dpo"),
                build=builds.dpo,
                trains=True,
            )
        )
    if recipe.quantize is not None:
        source = made_by(recipe)
        stages.append(
            Stage(
                name="quantize",
                folder="quantized",
                inputs=present(*(["data"] if uses_rows(recipe) else []), *([source] if source else [])),
                part=quantize_part(recipe),
                files=quantize_files,
                check=quantize_problems,
                build=builds.quantize,
                resumes=True,
                keeps=True,
            )
        )
    if recipe.eval is not None:
        stages.append(
            Stage(
                name="eval",
                folder="eval",
                inputs=present(*MEASURED),
                part=evaluate_part(recipe),
                files=evaluate_files,
                check=evaluate_problems,
                build=builds.evaluate,
                resumes=True,
                keeps=True,
            )
        )
    if recipe.release is not None:
        stages.append(
            Stage(
                name="release",
                folder="release",
                inputs=present(*CHAIN),
                part=release_part,
                files=release_files,
                check=release_problems,
                build=builds.release,
            )
        )
    return stages
