"""What has to agree between the sections of a recipe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from posttrain.chat.template import builtin_templates
from posttrain.recipe.interpolation import UNRESOLVED
from posttrain.recipe.names import LOSSES, is_known, names
from posttrain.recipe.origins import DEFAULT, Node
from posttrain.recipe.rules_generate import check_generate
from posttrain.recipe.rules_text import check_text
from posttrain.recipe.schema import Lora, Model, Recipe
from posttrain.recipe.suggest import did_you_mean, nearest

_SIZES = ("hidden_size", "num_attention_heads", "num_key_value_heads")


def _at(tree: Node, key: str) -> Node | None:
    """Return the node at a dotted key, or None where it is absent or `null`."""
    here: Node | None = tree
    for part in key.split("."):
        if here is None or not isinstance(here.value, dict):
            return None
        here = here.value.get(part)
    return None if here is None or here.value is None else here


def _value(tree: Node, key: str) -> Any:
    node = _at(tree, key)
    return None if node is None else node.value


def check_rules(tree: Node) -> list[str]:
    """Return one message for each rule between sections that the recipe breaks.

    Works on a tree in which single values may be wrong, so that these messages come together with those.
    """
    return [
        *_model(tree),
        *check_generate(tree),
        *_data(tree),
        *_quantization(tree),
        *check_text(tree),
        *_names(tree),
        *_continued_adapter(tree),
        *_reference(tree),
    ]


def _model(tree: Node) -> list[str]:
    model, base, new = _at(tree, "model"), _at(tree, "model.base"), _at(tree, "model.new")
    if model is None or not isinstance(model.value, dict):
        return []
    problems = []
    # A model that nobody wrote about has no line; then the recipe as a whole is what lacks it.
    where = tree.origin if model.origin == DEFAULT else model.origin
    # A misspelt key is reported with what was meant.
    misspelt = set(model.value) - set(Model.__dataclass_fields__) or any(
        "model" in nearest(key, Recipe.__dataclass_fields__)
        for key in set(tree.value) - set(Recipe.__dataclass_fields__)
    )
    if base is None and new is None and not misspelt:
        problems.append(f"{where}: model: give base (a hub id or a folder) or new (a model made from scratch)")
    if base is not None and new is not None:
        problems.append(f"{new.origin}: model.new: model.base is given too; keep one of them")
    if new is not None and _at(tree, "cpt") is None:
        problems.append(f"{new.origin}: model.new: a new model has to be pretrained first; give a cpt section")
    template = _at(tree, "model.chat_template")
    if new is not None and template is not None and template.value not in builtin_templates():
        problems.append(
            f"{_written(template, new).origin}: model.chat_template: a new model needs a built-in template, whose "
            f"special tokens its tokenizer gets; give one of {', '.join(builtin_templates())}, not {template.value}"
        )
    sizes = {key: _value(tree, f"model.new.{key}") for key in _SIZES}
    if new is not None and all(type(size) is int and size > 0 for size in sizes.values()):
        for key, divisor in (("hidden_size", "num_attention_heads"), ("num_attention_heads", "num_key_value_heads")):
            if sizes[key] % sizes[divisor]:
                node = new.value[key]
                problems.append(
                    f"{_written(new.value[key], new.value[divisor], new).origin}: model.new.{key}: "
                    f"{node.value} is not a multiple of {divisor} {sizes[divisor]}"
                )
    return problems


def _names(tree: Node) -> list[str]:
    """Find names that a trainer would refuse, the last one only after hours of other stages."""
    found = []
    for stage in ("cpt", "sft", "dpo"):
        for key in ("optim", "lr_scheduler_type"):
            node = _at(tree, f"{stage}.{key}")
            if node is not None and isinstance(node.value, str) and not is_known(key, node.value):
                found.append(_unknown(node, f"{stage}.{key}", node.value, names(key)))
    losses = _at(tree, "dpo.loss_type")
    for node in losses.value if losses is not None and isinstance(losses.value, list) else ():
        if isinstance(node, Node) and isinstance(node.value, str) and node.value not in LOSSES:
            found.append(_unknown(node, "dpo.loss_type", node.value, LOSSES))
    return found


def _unknown(node: Node, key: str, name: str, known: Sequence[str]) -> str:
    return f"{node.origin}: {key}: there is no {name!r}; {did_you_mean(name, list(known))}"


def _continued_adapter(tree: Node) -> list[str]:
    """An adapter that SFT leaves is trained on by DPO as it is, so both have to describe the same one."""
    sft, dpo = _at(tree, "sft.lora"), _at(tree, "dpo.lora")
    if sft is None or dpo is None or _value(tree, "sft.lora.merge") is not False:
        return []
    return [
        f"{_written(*(node for node in (_at(tree, f'dpo.lora.{key}'), dpo) if node is not None)).origin}: "
        f"dpo.lora.{key}: differs from sft.lora.{key}, and DPO trains on the adapter that SFT leaves "
        "(sft.lora.merge: false); make them equal, or merge"
        for key in Lora.__dataclass_fields__
        if key not in ("merge", "dropout") and _plain(tree, f"sft.lora.{key}") != _plain(tree, f"dpo.lora.{key}")
    ]


def _reference(tree: Node) -> list[str]:
    """Where reference log-probabilities come from has to go with the adapter and with a reference that moves."""
    node = _at(tree, "dpo.reference")
    if node is None:
        return []
    problems = []
    if node.value == "adapter_off" and _at(tree, "dpo.lora") is None:
        problems.append(
            f"{node.origin}: dpo.reference: adapter_off needs an adapter; give dpo.lora, or reference: precomputed"
        )
    if node.value == "precomputed" and _value(tree, "dpo.trainer.sync_ref_model") is True:
        problems.append(
            f"{node.origin}: dpo.reference: dpo.trainer.sync_ref_model changes the reference while it trains, and "
            "precomputed log-probabilities stay as they are; give reference: model, or leave sync_ref_model out"
        )
    return problems


def _plain(tree: Node, key: str) -> Any:
    value = _value(tree, key)
    return [getattr(item, "value", item) for item in value] if isinstance(value, list) else value


def _written(*nodes: Node) -> Node:
    """Return the first node that the recipe wrote itself."""
    return next((node for node in nodes if node.origin != DEFAULT), nodes[-1])


def _data(tree: Node) -> list[str]:
    problems = []
    needs = (
        ("sft", "data.sft", "SFT trains on chats"),
        ("dpo", "data.preference", "DPO trains on preference pairs"),
        ("cpt", "cpt.text", "pretraining needs text"),
    )
    for stage, entries, why in needs:
        section, node = _at(tree, stage), _at(tree, entries)
        if section is None or section.value is UNRESOLVED:
            continue
        if node is None or node.value == []:
            problems.append(f"{section.origin}: {stage}: {entries} is empty; {why}, so give at least one entry")
    most = _at(tree, "data.filters.length.max_tokens")
    if most is not None and _at(tree, "model.new") is not None:
        problems.append(
            f"{most.origin}: data.filters.length.max_tokens: a new model has no tokenizer yet when the rows are "
            "filtered; give max_prompt and max_response in characters"
        )
    return problems


def _quantization(tree: Node) -> list[str]:
    problems = []
    for stage in ("sft", "dpo"):
        node = _at(tree, f"{stage}.quantization")
        if node is not None and node.value == "nf4" and _at(tree, f"{stage}.lora") is None:
            problems.append(
                f"{node.origin}: {stage}.quantization: 4-bit weights cannot be trained; give {stage}.lora to train "
                "adapters on them, or quantization: none"
            )
    return problems
