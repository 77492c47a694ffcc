"""A model card: a YAML head for the hub, then Markdown, from a template."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from posttrain.data.report.words import count, several
from posttrain.release.card import terms
from posttrain.release.card.evaluation import evaluation
from posttrain.release.card.hub_results import eval_results
from posttrain.release.card.inputs import CardInputs, Sibling, branch_of, check_inputs, title_of
from posttrain.release.card.limitations import limitations
from posttrain.release.card.mixture import datasets, languages, mixture
from posttrain.release.card.paths import HUB
from posttrain.release.card.quantised import describe, quantised
from posttrain.release.card.text import at_start, code, language_name, large, plain, size, table
from posttrain.release.card.training import hyper_parameters
from posttrain.release.card.usage import usage_block

_TEMPLATES = Path(__file__).resolve().parent / "templates"
_TEMPLATE = "model.md.jinja"
_KINDS = {"base": "Base", "sft": "SFT", "instruct": "Instruct", "variant": "GPTQ variant"}
_TAGS = {"cpt": "pretraining", "sft": "sft", "dpo": "dpo"}


def write_card(inputs: CardInputs) -> str:
    """Return the model card as the text of `README.md`; equal inputs give equal text.

    Raises:
        UserError: A name, licence or language among the inputs would not stay within what it is put into.
    """
    from huggingface_hub import ModelCard
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    check_inputs(inputs)
    environment = Environment(  # Markdown: what others wrote is escaped where it is put into words
        loader=FileSystemLoader(_TEMPLATES), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    body = environment.get_template(_TEMPLATE).render(_values(inputs))
    head = metadata(inputs).to_yaml(line_break="\n")
    return str(ModelCard(f"---\n{head}\n---\n\n{body.strip()}\n"))


def metadata(inputs: CardInputs) -> Any:
    """Return the metadata as huggingface_hub's `ModelCardData`."""
    from huggingface_hub import ModelCardData

    parent = parent_repository(inputs)
    found = eval_results(inputs)
    named = languages(inputs)
    tags = {"posttrain", *(_TAGS[stage] for stage in inputs.stages), *(["conversational"] if inputs.has_chat else [])}
    if inputs.variant is not None:
        tags |= {"gptq", f"{inputs.variant['bits']}-bit"}
    keys: dict[str, Any] = terms.metadata(inputs)
    if parent is not None:
        keys["base_model_relation"] = "quantized" if inputs.kind == "variant" else "finetune"
    if found:
        keys |= {"eval_results": found, "model_name": inputs.title}
    return ModelCardData(
        base_model=parent,
        datasets=datasets(inputs) or None,
        language=named or None,
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=sorted(tags),
        **keys,
    )


def parent_repository(inputs: CardInputs) -> str | None:
    """Return the repository of the model that this one was made from, None where it has none."""
    before = {"base": (), "sft": ("base",), "instruct": ("sft", "base")}
    chain = (inputs.origin,) if inputs.kind == "variant" else before[inputs.kind]
    siblings = {sibling.name: sibling.repository for sibling in inputs.siblings}
    return next((siblings[name] for name in chain if name in siblings), inputs.base_model)


def _values(inputs: CardInputs) -> dict[str, Any]:
    licence = terms.section(inputs)
    return {
        "title": plain(inputs.title),
        "kind": inputs.kind,
        "branch": inputs.branch,
        "repository": inputs.repository,
        "marks": licence["marks"],
        "summary": _summary(inputs),
        "about": at_start(plain(inputs.about)),
        "facts": _facts(inputs, licence),
        "family": _family(inputs),
        "usage": usage_block(inputs),
        "packages": _packages(inputs),
        "has_chat": inputs.has_chat,
        "evaluation": evaluation(inputs),
        "quantised": quantised(inputs),
        "hyper_parameters": hyper_parameters(inputs),
        "mixture": mixture(inputs),
        "stages": inputs.stages,
        "limitations": limitations(inputs),
        "licence": licence,
        "versions": _versions(inputs),
    }


def _summary(inputs: CardInputs) -> str:
    """Say in a sentence what the model is."""
    title = plain(inputs.title)
    if inputs.variant is not None:
        origin = _link(parent_repository(inputs), str(inputs.origin))
        return f"A copy of {origin} in fewer bits: {describe(inputs.variant)}."
    start = _link(inputs.base_model, "a model that the recipe makes itself")
    rows = {stage: inputs.manifests[stage].get("metrics", {}).get("rows") for stage in inputs.stages}
    steps = []
    if "cpt" in rows:
        steps.append("pretrained on text" if inputs.base_model is None else "pretrained further on text")
    if "sft" in rows:
        number = f"{count(rows['sft'])} " if rows["sft"] else ""
        steps.append(f"fine-tuned on {number}conversations (SFT)")
    if "dpo" in rows:
        number = f"{count(rows['dpo'])} " if rows["dpo"] else ""
        steps.append(f"optimised on {number}preference pairs (DPO)")
    return f"{title} is {start}{', ' if steps else ''}{several(steps)}."


def _link(repository: str | None, otherwise: str) -> str:
    return _linked(title_of(repository), repository) if repository else otherwise


def _linked(name: str, repository: str, at: str = "") -> str:
    """Link to a repository; one whose owner the recipe does not name yet leads nowhere, so that is only named."""
    return f"[{plain(name)}]({HUB}/{repository}{at})" if "/" in repository else plain(name)


def _facts(inputs: CardInputs, licence: dict[str, Any]) -> list[tuple[str, str]]:
    """Return what a reader looks for first."""
    facts = []
    parent = parent_repository(inputs)
    if parent is not None:
        facts.append(("Made from", _link(parent, "")))
    named = languages(inputs)
    if named:
        facts.append(("Languages", several(map(language_name, named))))
    facts.append(("Licence", several(f"[{name}]({url})" if url else name for name, url, _ in licence["licences"])))
    if inputs.weights is not None:
        number = f"{large(inputs.weights.parameters)} parameters in " if inputs.weights.parameters else ""
        kind = _dtype(inputs)
        facts.append(("Weights", f"{number}{kind}, {size(inputs.weights.bytes)}, safetensors"))
    template = (inputs.recipe.get("model") or {}).get("chat_template")
    if inputs.has_chat:
        own = template in (None, "tokenizer")
        facts.append(("Chat template", "in the tokenizer" if own else f"{code(template)}, in the tokenizer"))
    return facts


def _dtype(inputs: CardInputs) -> str:
    weights, record = inputs.weights, inputs.variant
    assert weights is not None
    if record is not None:
        rest = f", the rest in {weights.dtype}" if weights.dtype else ""
        return f"{record['bits']} bits{rest}"
    return str(weights.dtype)


def _family(inputs: CardInputs) -> str | None:
    """Return a table of the family, or None where it has one member."""
    members = inputs.family()
    start = [("Start", _link(inputs.base_model, ""))] if inputs.base_model else []
    if len(members) + len(start) < 2:
        return None
    lines = [[kind, link, "the model the recipe starts from"] for kind, link in start]
    lines += [[_KINDS[each.kind], _member(each), _about(inputs, each)] for each in members]
    return table(["Kind", "Model", ""], lines)


def _member(member: Sibling) -> str:
    branch = branch_of(member.revision)
    at = f"/tree/{branch}" if branch else ""
    name = member.name if member.kind == "variant" else title_of(member.repository)
    return _linked(name, member.repository, at)


def _about(inputs: CardInputs, member: Sibling) -> str:
    records = {record["name"]: record for record in (inputs.variants or {}).get("variants", ())}
    preferences = "after SFT and DPO" if "sft" in inputs.manifests else "after DPO"
    words = {"base": "pretrained", "sft": "after supervised fine-tuning", "instruct": preferences}
    about = describe(records[member.name]) if member.name in records else words.get(member.kind, "quantised")
    return f"**this model**: {about}" if member.name == inputs.name else about


def _packages(inputs: CardInputs) -> str:
    return "transformers accelerate" + (" optimum gptqmodel" if inputs.kind == "variant" else "")


def _versions(inputs: CardInputs) -> str:
    """Name the versions of the packages that the last stage was built with, where its manifest has them."""
    stages = [stage for stage in ("quantize", *reversed(inputs.stages)) if stage in inputs.manifests]
    found = inputs.manifests[stages[0]].get("versions", {}) if stages else {}
    names = ("python", "posttrain", "torch", "transformers", "trl", "gptqmodel")
    return several(f"{name} {plain(found[name])}" for name in names if name in found)
