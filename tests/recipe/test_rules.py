"""What has to agree between sections."""

from __future__ import annotations

import pytest

from tests.recipe.conftest import Load, Problems

CPT = "cpt: {text: [{path: a}]}\n"
MODEL = "name: x\nmodel: {base: a}\n"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("name: x\n", "x.yaml: model: give base (a hub id or a folder) or new (a model made from scratch)"),
        ("name: x\nmodel:\n  dtype: float32\n", "x.yaml:2: model: give base (a hub id or a folder) or new"),
        (
            f"name: x\nmodel:\n  base: a\n  new: {{}}\n  chat_template: plain\n{CPT}",
            "x.yaml:4: model.new: model.base is",
        ),
        (
            "name: x\nmodel:\n  new: {}\n  chat_template: plain\n",
            "x.yaml:3: model.new: a new model has to be pretrained first; give a",
        ),
        (MODEL + "cpt: {}\n", "x.yaml:3: cpt: cpt.text is empty; pretraining needs text, so give at least one entry"),
        (MODEL + "sft: {}\n", "x.yaml:3: sft: data.sft is empty; SFT trains on chats, so give at least one entry"),
        (MODEL + "sft:\n  packing: none\ndata:\n  sft: []\n", "x.yaml:3: sft: data.sft is empty; SFT trains on chats"),
        (MODEL + "dpo: {}\n", "x.yaml:3: dpo: data.preference is empty; DPO trains on preference pairs, so give"),
        (
            MODEL + "data: {sft: [{source: chats, path: a}]}\nsft:\n  quantization: nf4\n",
            "x.yaml:5: sft.quantization: 4-bit weights cannot be trained; give sft.lora to train adapters on them",
        ),
        (
            MODEL + "data: {preference: [{source: pairs, path: a}]}\ndpo:\n  quantization: nf4\n  lora: null\n",
            "x.yaml:5: dpo.quantization: 4-bit weights cannot be trained; give dpo.lora to train adapters on them",
        ),
        (
            MODEL + "data: {preference: [{source: pairs, path: a}]}\ndpo:\n  reference: adapter_off\n",
            "x.yaml:5: dpo.reference: adapter_off needs an adapter; give dpo.lora, or reference: precomputed",
        ),
        (
            MODEL + "data: {preference: [{source: pairs, path: a}]}\n"
            "dpo:\n  reference: precomputed\n  trainer: {sync_ref_model: true}\n",
            "x.yaml:5: dpo.reference: dpo.trainer.sync_ref_model changes the reference while it trains",
        ),
        (
            f"name: x\nmodel:\n  new:\n    hidden_size: 9\n  chat_template: plain\n{CPT}",
            "x.yaml:4: model.new.hidden_size: 9 is not a multiple of num_attention_heads 4",
        ),
        (
            "name: x\nmodel:\n  new:\n    num_key_value_heads: 3\n  chat_template: plain\ncpt: {text: [{path: a}]}\n",
            "x.yaml:4: model.new.num_attention_heads: 4 is not a multiple of num_key_value_heads 3",
        ),
    ],
)  # fmt: skip
def test_rules(problems: Problems, text: str, problem: str) -> None:
    found = problems(text)
    assert len(found) == 1
    assert found[0].startswith(problem)


def test_rules_come_together_with_other_problems(problems: Problems) -> None:
    found = problems("name: x\nsft: {quantization: nf4, learning_rate: -1}\ndpo: {}\n")
    assert [line.split(": ")[1] for line in found] == ["sft.learning_rate", "model", "sft", "dpo", "sft.quantization"]


def test_what_agrees_loads(load_text: Load) -> None:
    load_text("name: x\nmodel: {new: {}, chat_template: plain}\ncpt: {text: [{path: a}]}\n")
    load_text(MODEL + "data: {sft: [{source: chats, path: a}]}\nsft: {quantization: nf4, lora: {}}\n")
    load_text(MODEL + "data: {sft: [{source: chats, path: a}]}\n")
