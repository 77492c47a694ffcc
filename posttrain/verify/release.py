"""A release folder against what it says of itself: its digests, its signature, and the manifests of its chain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, TypeGuard

from posttrain.errors import UserError
from posttrain.release.layout import ABOUT, CARD, FORMAT, MANIFESTS, recorded_files
from posttrain.release.limits import read_json, read_text, size_problem
from posttrain.release.model_files import (
    WEIGHTS,
    is_model_file,
    remote_code_problems,
    unexpected,
)
from posttrain.release.names import file_problem, name_problem
from posttrain.release.recipe_text import RECIPE
from posttrain.release.sign import signature_problems
from posttrain.release.sums import LEFT_OUT, SIGNATURE, SUMS, read_sums, release_files
from posttrain.release.weights import weight_problems
from posttrain.stages.digest import sha256_file
from posttrain.verify.chain import chain_problems, manifest_problems, recipe_problems
from posttrain.verify.kinds import belongs, called, most_bytes


@dataclass
class Report:
    """What was found: `problems` by file, and `notes` on what could not be checked or is worth knowing."""

    folder: Path
    files: int = 0
    bytes: int = 0
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass
class _Found:
    """What is in a folder: digests of the files that could be read, and the names of those that nothing vouches for."""

    digests: dict[str, str]
    bad: set[str]


def release_folders(folder: Path) -> list[Path]:
    """Return the release folders that a path means: itself, those in it, or those in its `release/`.

    Raises:
        UserError: There is none.
    """
    if not folder.is_dir():
        what = "a file; unpack it into a folder of its own first" if folder.exists() else "not there"
        raise UserError(f"{folder}: is {what}; give a release folder")
    for place in (folder, folder / "release"):
        if (place / SUMS).exists() or (place / ABOUT).exists():
            return [place]
        if place.is_dir() and (found := sorted(path.parent for path in place.glob(f"*/{ABOUT}"))):
            return found
    raise UserError(f"{folder}: holds no release, neither {SUMS} nor {ABOUT} is in it; give a release folder")


def verify(folder: Path, *, key: Path | None = None, identity: str | None = None, issuer: str | None = None) -> Report:
    """Check a release folder.

    Args:
        folder: It.
        key: The public key that it must be signed with.
        identity: Instead, who must have signed it by Sigstore, vouched for by `issuer`.
        issuer: See `identity`.

    Returns:
        What is wrong, each problem beginning with the file it is about.

    Raises:
        UserError: A signature is to be checked, and model-signing or the key is not there.
    """
    report = Report(folder)
    found = _check_files(folder, report)
    about = _read(folder, ABOUT, report)
    if about is not None:
        _check_model(folder, about, found, report)
        manifests = _check_manifests(folder, about, report)
        if manifests is not None:
            _check_recorded(about, manifests, found, report)
            _check_recipe(folder, manifests, report)
    if CARD not in found.digests:
        report.problems += [] if CARD in found.bad else [f"{CARD}: is missing"]
    elif CARD not in found.bad and not report.problems:
        _check_card(folder, report)
    _check_signature(folder, report, key, identity, issuer, about)
    report.problems = list(dict.fromkeys(report.problems))
    return report


def _check_files(folder: Path, report: Report) -> _Found:
    """Compare what is there with `SHA256SUMS`, reading every file once."""
    here, digests, bad = release_files(folder), {}, set()
    for name in here:
        most, path = most_bytes(name), folder / name
        problem = size_problem(path, name, 1 << 62 if most is None else most)
        if problem is None and (odd := file_problem(name)):
            problem = f"{name!a}: {odd}"
        if problem is not None:
            report.problems.append(problem)
            bad.add(name)
            continue
        digests[name] = sha256_file(path)
        report.files += 1
        report.bytes += path.stat().st_size
    try:
        stated = read_sums(folder)
    except UserError as error:
        report.problems += [problem for problem in error.problems if problem not in report.problems]
        return _Found(digests, bad)
    for name, digest in stated.items():
        if name not in digests:
            report.problems += [] if name in bad else [f"{name}: is missing, and {SUMS} lists it"]
            bad.add(name)
        elif digests[name] != digest:
            report.problems.append(f"{name}: was changed; {SUMS} has another digest")
            bad.add(name)
    for name in here:
        if name not in stated and name not in LEFT_OUT:
            report.problems.append(f"{name}: was added; {SUMS} does not list it")
            bad.add(name)
    return _Found(digests, bad)


def _read(folder: Path, name: str, report: Report) -> dict[str, Any] | None:
    try:
        return read_json(folder / name, name)
    except UserError as error:
        if not any(problem.startswith(f"{name}:") for problem in report.problems):
            report.problems += error.problems
        return None


def _check_model(folder: Path, about: Mapping[str, Any], found: _Found, report: Report) -> None:
    """See that the folder holds the model's files, whole, and nothing that would run."""
    if about.get("format") != FORMAT:
        report.problems.append(f"{ABOUT}: has format {about.get('format')!r}, this version reads format {FORMAT}")
        return
    for key in ("name", "branch"):
        if problem := name_problem(str(about.get(key, ""))):
            report.problems.append(f"{ABOUT}: {key}: {problem}")
    trust, listed = about.get("trust_remote_code") is True, about.get("model_files")
    if not _is_names(listed):
        report.problems.append(f"{ABOUT}: lists no model_files")
        return
    names = sorted(found.digests)
    for name in names:
        if not belongs(name, trust):
            report.problems.append(unexpected(name))
        elif is_model_file(name) and name not in listed and name not in found.bad:
            report.problems.append(f"{name}: is a file of the model that {ABOUT} does not list")
    for name in listed:
        if name not in found.digests and name not in found.bad:
            report.problems.append(f"{name}: is missing, and {ABOUT} lists it")
    model = [name for name in names if is_model_file(name)]
    if not any(name in found.bad for name in listed if any(fnmatchcase(str(name), each) for each in WEIGHTS)):
        report.problems += weight_problems(folder, model)
    if trust:
        report.notes.append("the model runs code of its own (model.trust_remote_code): read it before it is loaded")
    else:
        report.problems += remote_code_problems(folder, model)


def _is_names(value: Any) -> TypeGuard[list[str]]:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _check_manifests(folder: Path, about: Mapping[str, Any], report: Report) -> dict[str, dict[str, Any]] | None:
    """Read the manifests and check the chain; return them, or None where one cannot be used."""
    stages = about.get("chain")
    if not isinstance(stages, list) or not all(isinstance(s, str) and name_problem(s) is None for s in stages):
        report.problems.append(f"{ABOUT}: its chain is no list of stages")
        return None
    manifests, whole = {}, True
    for stage in stages:
        name = f"{MANIFESTS}/{stage}.json"
        manifest = _read(folder, name, report)
        problems = [] if manifest is None else manifest_problems(stage, manifest)
        report.problems += [f"{name}: {problem}" for problem in problems]
        if manifest is None or problems:
            whole = False
        else:
            manifests[stage] = manifest
    if not whole:
        return None
    report.problems += [f"{MANIFESTS}/{problem.replace(':', '.json:', 1)}" for problem in chain_problems(manifests)]
    return manifests


def _check_recorded(
    about: Mapping[str, Any], manifests: Mapping[str, Mapping[str, Any]], found: _Found, report: Report
) -> None:
    """Compare the model's files with what the stage recorded that made them."""
    stage, inside = str(about.get("stage")), str(about.get("inside"))
    if not _is_names(about.get("model_files")):
        return  # said already
    if stage not in manifests:
        report.problems.append(f"{ABOUT}: names the stage {stage!r}, which is not in its chain")
        return
    recorded = recorded_files(manifests[stage], inside)
    for name in about["model_files"]:
        entry = recorded.get(name)
        if name in found.bad or name not in found.digests:
            continue  # said already
        if entry is None:
            report.problems.append(f"{name}: is not among the files that {MANIFESTS}/{stage}.json recorded")
        elif entry["sha256"] != found.digests[name]:
            report.problems.append(
                f"{name}: is not {called(str(name))} that {MANIFESTS}/{stage}.json recorded, though {SUMS} has it"
            )


def _check_recipe(folder: Path, manifests: Mapping[str, Mapping[str, Any]], report: Report) -> None:
    import yaml

    try:
        recipe = yaml.safe_load(read_text(folder / RECIPE, RECIPE))
    except UserError as error:
        report.problems += [problem for problem in error.problems if problem not in report.problems]
        return
    except (yaml.YAMLError, RecursionError) as error:
        report.problems.append(f"{RECIPE}: is not YAML: {str(error).splitlines()[0]}")
        return
    if not isinstance(recipe, Mapping):
        report.problems.append(f"{RECIPE}: is no recipe")
        return
    report.problems += [f"{RECIPE}: {problem}" for problem in recipe_problems(_unescaped(recipe), manifests)]


def _unescaped(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _unescaped(child) for key, child in value.items()}
    if isinstance(value, list):
        return [_unescaped(child) for child in value]
    return value.replace("\\${", "${") if isinstance(value, str) else value


def _check_card(folder: Path, report: Report) -> None:
    from posttrain.release.card import lint_card

    try:
        found = lint_card(folder)
    except (UserError, ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        # what it is checked against was put into another form than a release has it in
        report.problems.append(
            f"{CARD}: cannot be checked against the files beside it: {type(error).__name__}: {error}"
        )
        return
    report.problems += [f"{CARD}: {finding.text}" for finding in found if finding.level == "error"]


def _check_signature(
    folder: Path,
    report: Report,
    key: Path | None,
    identity: str | None,
    issuer: str | None,
    about: Mapping[str, Any] | None,
) -> None:
    signed, asked = (folder / SIGNATURE).is_file(), key is not None or identity is not None
    if asked and signed:
        report.problems += signature_problems(folder, key=key, identity=identity, issuer=issuer)
    elif asked:
        report.problems.append(f"{SIGNATURE}: is missing, so nobody vouches for this release")
    elif signed:
        report.notes.append("it is signed, and the signature was not checked: give --key, or --identity and --issuer")
    elif about is not None and about.get("signed"):
        report.problems.append(f"{SIGNATURE}: is missing, and {ABOUT} says that the release is signed")
    else:
        report.notes.append("it is not signed: what was changed together with SHA256SUMS cannot be found")
