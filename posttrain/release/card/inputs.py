"""What a model card is written from, checked before anything is written with it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from posttrain.errors import UserError

Kind = Literal["base", "sft", "instruct", "variant"]
KINDS: tuple[Kind, ...] = ("base", "sft", "instruct", "variant")
Values = Mapping[str, Any]

# What a name becomes a part of: a URL, a heading, Python code, a shell command. The hub allows no more than these.
_NAME = re.compile(r"(?!.*(?:\.\.|--))[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9])?")
_REVISION = re.compile(r"(?!.*\.\.)[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_LICENCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]{0,63}")
_FILE = re.compile(r"(?!.*\.\.)[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_LANGUAGE = re.compile(r"[a-z]{2,3}")

DEFAULT_PROMPT = "Write one sentence about a lake in winter."


@dataclass(frozen=True, kw_only=True)
class CardLicense:
    """Under which licence the model is published.

    Attributes:
        ids: Its id, or the ids of all that apply together, as the hub or SPDX has them: `llama3.1`, `apache-2.0`.
        base: The ids under which the base model is published; empty where that is not known, or there is none.
        reason: Why the licence is not the base's, if it is not.
        files: Names of the texts of the licences in the release folder.
    """

    ids: tuple[str, ...]
    base: tuple[str, ...] = ()
    reason: str | None = None
    files: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Sibling:
    """Another model of the family.

    Attributes:
        name: What results call it: `base`, `sft`, `instruct`, or the variant's name.
        repository: Its repository, `owner/name` or `name`.
        kind: What it is.
        revision: The branch that holds it, or None for the default one.
    """

    name: str
    repository: str
    kind: Kind
    revision: str | None = None


@dataclass(frozen=True, kw_only=True)
class Weights:
    """The weights of a folder, from the headers of its safetensors files.

    Attributes:
        dtype: The number type of most of the weights that are floating point, `bfloat16`, or None if none is.
        bytes: Size of the safetensors files.
        parameters: How many numbers they hold. Of packed weights that is not the number of parameters: None.
    """

    dtype: str | None
    bytes: int
    parameters: int | None


@dataclass(frozen=True, kw_only=True)
class CardInputs:
    """All that a card is written from. Nothing else is known of the model, so nothing else is said of it.

    Attributes:
        name: What results call this model: `base`, `sft`, `instruct`, or the variant's name.
        repository: Where it is to be published, `owner/name` or `name`.
        kind: What it is.
        recipe: The resolved recipe as plain values, without paths of the machine.
        manifests: The manifests of the stages it was built by, by stage. Times, hardware and commit are not needed.
        license: Its licence.
        base_model: Hub id of the model the recipe starts from, None where there is none (a new model, or a folder).
        revision: The branch that holds it, or None for the default one, `main`.
        siblings: The other models of the family.
        results: `eval/results.json`.
        variants: `quantized/variants.json`.
        summary: `data/summary.json`.
        weights: Its weights, see `posttrain.release.card.weights.read_weights`.
        languages: ISO 639 codes of what the model is meant for; by default the languages of its training rows.
        chat: Whether it has a chat template; by default whether it is an SFT or Instruct model, or made from one.
        prompt: What the usage code asks.
        max_new_tokens: How many tokens the usage code lets it write.
        about: Sentences about the model by its publisher, plain text.
        limitations: Further limitations that its publisher states, plain text.
    """

    name: str
    repository: str
    kind: Kind
    recipe: Values
    manifests: Mapping[str, Values]
    license: CardLicense
    base_model: str | None = None
    revision: str | None = None
    siblings: Sequence[Sibling] = ()
    results: Values | None = None
    variants: Values | None = None
    summary: Values | None = None
    weights: Weights | None = None
    languages: tuple[str, ...] | None = None
    chat: bool | None = None
    prompt: str = DEFAULT_PROMPT
    max_new_tokens: int = 200
    about: str = ""
    limitations: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """The repository's name without its owner."""
        return title_of(self.repository)

    @property
    def branch(self) -> str | None:
        """The branch that has to be named to find it, None where it is the default one."""
        return branch_of(self.revision)

    @property
    def origin(self) -> str | None:
        """What a variant was quantised from: `base`, `sft` or `instruct`; None for what is no variant."""
        return str((self.variants or {}).get("of", "instruct")) if self.kind == "variant" else None

    @property
    def variant(self) -> Values | None:
        """The record of this variant, None for what is no variant."""
        records = (self.variants or {}).get("variants", ()) if self.kind == "variant" else ()
        return next((record for record in records if record["name"] == self.name), None)

    @property
    def has_chat(self) -> bool:
        """Whether the usage code is that of a chat."""
        return self.chat if self.chat is not None else (self.origin or self.kind) in ("sft", "instruct")

    @property
    def stages(self) -> tuple[str, ...]:
        """The training stages that made it, in order, of those there are manifests of."""
        last: dict[str, tuple[str, ...]] = {"base": ("cpt",), "sft": ("cpt", "sft"), "instruct": ("cpt", "sft", "dpo")}
        return tuple(stage for stage in last[self.origin or self.kind] if stage in self.manifests)

    @property
    def sets(self) -> tuple[str, ...]:
        """The sets of rows it was trained on: `sft`, `preference`."""
        return tuple({"sft": "sft", "dpo": "preference"}[stage] for stage in self.stages if stage != "cpt")

    def family(self) -> list[Sibling]:
        """Return the models of the family, this one among them, each after what it is made from."""
        own = Sibling(name=self.name, repository=self.repository, kind=self.kind, revision=self.revision)
        others = [sibling for sibling in self.siblings if sibling.name != self.name]
        variants = [str(record["name"]) for record in (self.variants or {}).get("variants", ())]

        def place(member: Sibling) -> tuple[int, int, str]:
            listed = variants.index(member.name) if member.name in variants else len(variants)
            return KINDS.index(member.kind), listed, member.name

        return sorted([own, *others], key=place)


def title_of(repository: str) -> str:
    """Return the name of a repository without its owner."""
    return repository.rpartition("/")[2]


def branch_of(revision: str | None) -> str | None:
    """Return a branch that has to be named, None for the default one."""
    return None if revision == "main" else revision


def check_inputs(inputs: CardInputs) -> None:
    """Refuse names that would not stay within what they are put into, and inputs that do not belong together.

    Raises:
        UserError: All that is wrong with them.
    """
    problems = [
        problem
        for what, repository in [
            ("the repository", inputs.repository),
            ("the base model", inputs.base_model),
            *((f"the repository of {sibling.name}", sibling.repository) for sibling in inputs.siblings),
        ]
        if repository is not None and (problem := _repository_problem(what, repository))
    ]
    for what, revision in [(inputs.name, inputs.revision), *((each.name, each.revision) for each in inputs.siblings)]:
        if revision is not None and not _REVISION.fullmatch(revision):
            problems.append(
                f"the branch of {what!r}: {_shown(revision)} is no name of a branch; use letters, digits, . _ -"
            )
    for what, name in (("model", inputs.name), *(("model", sibling.name) for sibling in inputs.siblings)):
        if not _FILE.fullmatch(name):
            problems.append(f"the {what} {_shown(name)}: a name is of letters, digits, . _ and -")
    licence = inputs.license
    if not licence.ids:
        problems.append("no licence is given; say under which the model is published")
    for id in (*licence.ids, *licence.base):
        if not _LICENCE.fullmatch(id):
            problems.append(f"the licence {_shown(id)} is no id of a licence, such as apache-2.0 or llama3.1")
    for name in licence.files:
        if not _FILE.fullmatch(name):
            problems.append(f"the licence file {_shown(name)}: give the name of a file in the release folder")
    for code in inputs.languages or ():
        if not _LANGUAGE.fullmatch(code):
            problems.append(f"the language {_shown(code)} is no ISO 639 code, such as fi")
    if inputs.kind == "variant" and inputs.variant is None:
        problems.append(f"the variant {inputs.name!r} is not in variants.json")
    if problems:
        raise UserError([f"model card: {problem}" for problem in problems])


def _repository_problem(what: str, repository: str) -> str | None:
    parts = repository.split("/")
    if len(parts) <= 2 and all(_NAME.fullmatch(part) for part in parts) and not repository.endswith(".git"):
        return None
    return f"{what} {_shown(repository)} is no repository of the hub; it is owner/name, of letters, digits, . _ and -"


def _shown(text: str) -> str:
    """Return a text as a message may quote it: short, on one line."""
    return repr(text if len(text) <= 80 else f"{text[:80]}...")
