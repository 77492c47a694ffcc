"""The release stage: a folder for each checkpoint, with all that is published of it."""

from __future__ import annotations

import dataclasses
import gc
import json
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posttrain.errors import UserError
from posttrain.release import answer, scan, sums
from posttrain.release.bom import BOM, bill_of_materials
from posttrain.release.checkpoints import Checkpoint, find_checkpoints
from posttrain.release.curves import curves
from posttrain.release.layout import ABOUT, CARD, CONSTRAINTS, FORMAT, MANIFESTS, constraints_file, recorded_files
from posttrain.release.licence import Terms, terms
from posttrain.release.limits import read_json
from posttrain.release.model_files import CONFIG, copy_model, model_files
from posttrain.release.recipe_text import RECIPE, portable_recipe, recipe_yaml, secrets_of
from posttrain.release.sign import sign
from posttrain.release.split import split
from posttrain.release.stops import stop_problems
from posttrain.stages import machine
from posttrain.stages.manifest import Manifest

if TYPE_CHECKING:
    from posttrain.recipe.schema import Recipe
    from posttrain.release.card import CardInputs
    from posttrain.stages.context import Context


@dataclass(frozen=True, kw_only=True)
class Work:
    """What all folders of a release share.

    `stable` and `volatile` are the two parts of each stage's manifest, by stage, in the order of the chain.
    """

    recipe: Recipe
    plain: dict[str, Any]
    recipe_text: str
    inputs: Mapping[str, Path]
    terms: Terms
    checkpoints: list[Checkpoint]
    stable: dict[str, dict[str, Any]]
    volatile: dict[str, dict[str, Any]]
    private: scan.Private


@dataclass(frozen=True)
class Written:
    """What came of a folder: what the model answered, and what is for the publisher to judge on its card."""

    answer: answer.Answer
    warnings: list[str]


def build(context: Context) -> None:
    """Write the release folders of a recipe.

    Raises:
        UserError: Something must not be published, a folder does not answer, or a card is not right.
    """
    work = prepare(context)
    context.leave_out_of_digest(f"*/{sums.BUILD}", f"*/{sums.SIGNATURE}")
    figures: dict[str, Any] = {}
    _free_devices()
    for checkpoint in work.checkpoints:
        _say(context, f"{checkpoint.name}: {checkpoint.repository}, branch {checkpoint.branch}")
        written = write_folder(work, checkpoint, context.folder / checkpoint.name)
        for warning in written.warnings:
            _say(context, f"{checkpoint.name}: card: {warning}")
        given = written.answer
        stopped = "stops by itself" if given.stopped else f"does not stop within {given.tokens} tokens"
        _say(context, f"{checkpoint.name}: answers in a process of its own, and {stopped}")
        figures[f"{checkpoint.name}/stops"] = given.stopped
    release = work.recipe.release
    assert release is not None
    signing = release.signing
    if signing is None:
        _say(context, "not signed: release.signing says nothing; verify can then find damage, but no forgery")
    elif signing.later:
        _say(context, "not signed yet (release.signing.later): verify says so until model.sig is there")
    context.report({"folders": len(work.checkpoints), "signed": signing is not None and not signing.later, **figures})


def prepare(context: Context) -> Work:
    """Gather what the folders share.

    Raises:
        UserError: A licence is wanting, or there is nothing to release.
    """
    recipe = context.recipe
    plain = portable_recipe(recipe, context.resolved)
    parts = {stage: split(dataclasses.asdict(Manifest.read(folder))) for stage, folder in context.inputs.items()}
    release = recipe.release
    assert release is not None
    return Work(
        recipe=recipe,
        plain=plain,
        recipe_text=recipe_yaml(plain, recipe),
        inputs=context.inputs,
        terms=terms(recipe),
        checkpoints=find_checkpoints(recipe, context.inputs),
        stable={stage: stable for stage, (stable, _) in parts.items()},
        volatile={stage: volatile for stage, (_, volatile) in parts.items()},
        private=scan.private(
            secrets_of(recipe, context.resolved),
            [Path(recipe.output_dir)] if Path(recipe.output_dir).is_absolute() else [],
            release.public_words,
        ),
    )


def write_folder(work: Work, checkpoint: Checkpoint, folder: Path) -> Written:
    """Write one release folder whole, signature included.

    Raises:
        UserError: With the folder's name before each problem.
    """
    folder.mkdir(parents=True)
    try:
        return _write(work, checkpoint, folder)
    except UserError as error:
        raise UserError([f"release of {checkpoint.name}: {problem}" for problem in error.problems]) from error


def _write(work: Work, checkpoint: Checkpoint, folder: Path) -> Written:
    from posttrain.release.card import lint_card, result_files, write_card
    from posttrain.release.card.usage import RECORD, usage_record

    release, trust = work.recipe.release, work.recipe.model.trust_remote_code
    assert release is not None
    source = work.inputs[checkpoint.stage] / checkpoint.inside
    names = model_files(source, trust)
    recorded = recorded_files(work.stable[checkpoint.stage], checkpoint.inside)
    copy_model(source, folder, names, recorded)
    if problems := stop_problems(folder, trust):
        raise UserError(problems)

    (folder / MANIFESTS).mkdir()
    for stage, stable in work.stable.items():
        _write_json(folder / MANIFESTS / f"{stage}.json", stable)
    (folder / RECIPE).write_text(work.recipe_text, encoding="utf-8")
    shutil.copyfile(constraints_file(), folder / CONSTRAINTS)
    work.terms.write(folder)
    digests = {name: recorded[name]["sha256"] for name in names}
    _write_json(folder / ABOUT, about(work, checkpoint, digests))
    (folder / BOM).write_text(_bill(work, checkpoint, folder, digests), encoding="utf-8")

    inputs = card_inputs(work, checkpoint, folder)
    for name, text in result_files(inputs).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    card = write_card(inputs)
    (folder / CARD).write_text(card, encoding="utf-8")
    given = answer.ask(card, folder)
    (folder / RECORD).write_text(usage_record(card), encoding="utf-8")
    findings = lint_card(folder)
    if problems := [f"{CARD}: {finding.text}" for finding in findings if finding.level == "error"]:
        raise UserError(problems)
    _write_json(folder / sums.BUILD, _volatile(work, given))
    if problems := scan.scan(folder, work.private, untouched=work.terms.files):
        hint = "; where a word is no secret, list it in release.public_words"
        raise UserError([*problems[:-1], problems[-1] + hint])
    sums.write_sums(folder)
    if release.signing is not None and not release.signing.later:
        sign(folder, release.signing)
    return Written(given, [finding.text for finding in findings if finding.level == "warning"])


def about(work: Work, checkpoint: Checkpoint, digests: Mapping[str, str]) -> dict[str, Any]:
    """Return what `release.json` says: which stage made the model, where it is published, and which files it is."""
    release = work.recipe.release
    assert release is not None
    return {
        "format": FORMAT,
        "name": checkpoint.name,
        "kind": checkpoint.kind,
        "of": checkpoint.of,
        "stage": checkpoint.stage,
        "inside": checkpoint.inside,
        "repository": checkpoint.repository,
        "branch": checkpoint.branch,
        "license": work.terms.id,
        "signed": release.signing.method if release.signing is not None else None,
        "trust_remote_code": work.recipe.model.trust_remote_code,
        "model_files": sorted(digests),
        "chain": list(work.stable),
    }


def _bill(work: Work, checkpoint: Checkpoint, folder: Path, digests: Mapping[str, str]) -> str:
    model = work.plain["model"]
    return bill_of_materials(
        name=checkpoint.name,
        repository=checkpoint.repository,
        license_id=work.terms.id,
        files=digests,
        manifests=work.stable,
        base=base_model(work.recipe) or model["base"],
        base_licences=work.terms.base,
        architecture=read_json(folder / CONFIG, CONFIG).get("model_type"),
        description=work.recipe.release.description if work.recipe.release is not None else None,
    )


def base_model(recipe: Recipe) -> str | None:
    """Return the hub id of the model that a recipe starts from, or None."""
    from posttrain.assets import is_hub_id

    assert recipe.release is not None
    named = recipe.release.base_model
    if named is not None or recipe.model.base is None:
        return named
    return recipe.model.base if is_hub_id(recipe.model.base, bare=True) else None


def card_inputs(work: Work, checkpoint: Checkpoint, folder: Path) -> CardInputs:
    """Return what the card of a folder is written from."""
    from posttrain.release.card import CardInputs, CardLicense, Sibling, read_weights

    recipe, release = work.recipe, work.recipe.release
    assert release is not None

    def revision(of: Checkpoint) -> str | None:
        return None if of.branch == "main" else of.branch

    def record(stage: str, name: str) -> dict[str, Any] | None:
        path = work.inputs[stage] / name if stage in work.inputs else None
        return read_json(path, f"{path.parent.name}/{name}") if path is not None and path.is_file() else None

    return CardInputs(
        name=checkpoint.name,
        repository=checkpoint.repository,
        kind=checkpoint.kind,
        recipe=work.plain,
        manifests=work.stable,
        license=CardLicense(
            ids=(work.terms.id,), base=work.terms.base, reason=work.terms.reason, files=work.terms.files
        ),
        base_model=base_model(recipe),
        revision=revision(checkpoint),
        siblings=[
            Sibling(name=other.name, repository=other.repository, kind=other.kind, revision=revision(other))
            for other in work.checkpoints
            if other.name != checkpoint.name
        ],
        results=record("eval", "results.json"),
        variants=record("quantize", "variants.json"),
        summary=record("data", "summary.json"),
        weights=read_weights(folder),
        chat=(folder / "chat_template.jinja").is_file(),
        prompt=release.prompt,
        max_new_tokens=release.max_new_tokens,
        about=release.description or "",
        limitations=tuple(release.limitations),
    )


def _volatile(work: Work, given: answer.Answer) -> dict[str, Any]:
    """Return what `build.json` says: all of this build that another one of the same things would not share."""
    return {
        "format": FORMAT,
        "about": "Times, hardware, commits and figures of this build alone; SHA256SUMS leaves this file out.",
        "stages": work.volatile,
        "curves": {stage: found for stage, path in work.inputs.items() if (found := curves(path)) is not None},
        "answer": dataclasses.asdict(given),
        "released": {"versions": machine.versions(), "code": machine.commit(), "hardware": machine.hardware()},
    }


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def _free_devices() -> None:
    """Hand back what training in this process has left reserved: the folders answer in processes of their own."""
    torch: Any = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        gc.collect()
        torch.cuda.empty_cache()


def _say(context: Context, text: str) -> None:
    context.console.print(f"release  {text}", highlight=False, markup=False, soft_wrap=True)
