"""Packed equals unpacked, one large batch equals many small ones, and evaluation does not depend on its batches."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM

from tests.train.conftest import chat_rows, packed, pair_rows

Make = Callable[..., Any]


def gradients(trainer: Any) -> tuple[float, dict[str, torch.Tensor]]:
    """Run the micro-batches of one optimiser step; return the loss and the gradients before clipping."""
    trainer.args.max_grad_norm = 0.0
    found: dict[str, torch.Tensor] = {}

    class Grab(torch.optim.SGD):
        def step(self, closure: Any = None) -> None:
            for name, parameter in trainer.model.named_parameters():
                if parameter.grad is not None:
                    found[name] = parameter.grad.clone()

    trainer.optimizer = Grab([p for p in trainer.model.parameters() if p.requires_grad], lr=0.0)
    trainer.lr_scheduler = torch.optim.lr_scheduler.ConstantLR(trainer.optimizer)
    trainer.train()
    return trainer.state.log_history[0]["loss"], found


def assert_same(
    one: tuple[float, dict[str, torch.Tensor]], other: tuple[float, dict[str, torch.Tensor]], tolerance: float = 1e-5
) -> None:
    assert one[0] == pytest.approx(other[0], rel=tolerance)
    assert one[1].keys() == other[1].keys()
    assert one[1]
    for name, gradient in one[1].items():
        scale = gradient.abs().max().item() or 1.0
        assert torch.allclose(gradient, other[1][name], rtol=tolerance, atol=tolerance * scale), name


def test_packed_equals_unpacked(model: LlamaForCausalLM, supervised: Make) -> None:
    rows = chat_rows(12)
    plain = supervised(
        copy.deepcopy(model), rows, packing="none", global_batch_size=12, per_device_train_batch_size=12, max_steps=1
    )
    packed = supervised(copy.deepcopy(model), rows, packing="bfd", global_batch_size=12, max_steps=1)
    number = len(packed.train_dataset)
    assert 1 < number < 12
    packed = supervised(
        copy.deepcopy(model), rows, packing="bfd", global_batch_size=number, per_device_train_batch_size=1, max_steps=1
    )
    assert_same(gradients(plain), gradients(packed))


def test_wrapped_packing_differs_from_unpacked(model: LlamaForCausalLM, supervised: Make) -> None:
    """The control of the test above: where documents see each other, the loss is another one."""
    rows = chat_rows(12)
    plain = supervised(
        copy.deepcopy(model), rows, packing="none", global_batch_size=12, per_device_train_batch_size=12, max_steps=1
    )
    wrapped = supervised(copy.deepcopy(model), rows, packing="wrapped", global_batch_size=1, max_steps=1)
    number = len(wrapped.train_dataset)
    wrapped = supervised(copy.deepcopy(model), rows, packing="wrapped", global_batch_size=number, max_steps=1)
    assert gradients(plain)[0] != pytest.approx(gradients(wrapped)[0], rel=1e-5)


@pytest.mark.parametrize("packing", ["none", "bfd"])
def test_batch_of_eight_equals_accumulation(model: LlamaForCausalLM, supervised: Make, packing: str) -> None:
    rows = chat_rows(8 if packing == "none" else 24)
    if packing == "bfd":
        assert len(packed(rows, 64, "bfd")) >= 8
    one, other = [
        gradients(
            supervised(
                copy.deepcopy(model),
                rows,
                packing=packing,
                global_batch_size=8,
                per_device_train_batch_size=size,
                max_steps=1,
            )
        )
        for size in (8, 1)
    ]
    assert_same(one, other)


def test_dpo_batch_of_eight_equals_accumulation(model: LlamaForCausalLM, preference: Make) -> None:
    rows = pair_rows(8)
    results: list[tuple[float, dict[str, torch.Tensor]]] = []
    for size in (8, 1):
        trainer = preference(
            copy.deepcopy(model),
            copy.deepcopy(model),
            rows,
            global_batch_size=8,
            per_device_train_batch_size=size,
            max_steps=1,
        )
        results.append(gradients(trainer))
    assert_same(results[0], results[1])


def test_sft_evaluation_is_the_mean_over_tokens(model: LlamaForCausalLM, supervised: Make) -> None:
    rows = chat_rows(7, seed=3)
    total, tokens = 0.0, 0
    with torch.no_grad():
        for row in rows:
            ids, labels = torch.tensor([row["input_ids"]]), torch.tensor([row["labels"]])
            number = int((labels[:, 1:] != -100).sum())
            total += float(model(input_ids=ids, labels=labels).loss) * number
            tokens += number
    for size in (1, 3):
        trainer = supervised(
            copy.deepcopy(model), chat_rows(8), rows, global_batch_size=8, per_device_eval_batch_size=size, max_steps=1
        )
        trainer.train()
        first = next(entry for entry in trainer.state.log_history if "eval_loss" in entry)
        assert first["step"] == 0
        assert first["eval_tokens"] == tokens
        assert first["eval_loss"] == pytest.approx(total / tokens, rel=1e-5)


def test_dpo_evaluation_counts_each_pair_once(model: LlamaForCausalLM, preference: Make) -> None:
    torch.manual_seed(5)
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    held_out = pair_rows(7, seed=4)

    def log_probability(network: Any, prompt: list[int], answer: list[int]) -> float:
        logits = network(input_ids=torch.tensor([prompt + answer])).logits.log_softmax(-1)
        positions = torch.arange(len(prompt) - 1, len(prompt) + len(answer) - 1)
        return float(logits[0, positions, torch.tensor(answer)].sum())

    beta = 0.3
    margins = []
    with torch.no_grad():
        for row in held_out:
            chosen, rejected = (
                log_probability(other, row["prompt_ids"], row[key])
                - log_probability(model, row["prompt_ids"], row[key])
                for key in ("chosen_ids", "rejected_ids")
            )
            margins.append(beta * (chosen - rejected))
    for size in (1, 3):
        trainer = preference(
            copy.deepcopy(other),
            copy.deepcopy(model),
            pair_rows(4),
            held_out,
            beta=beta,
            global_batch_size=4,
            per_device_eval_batch_size=size,
        )
        metrics = trainer.evaluate()
        assert metrics["eval_pairs"] == 7
        assert metrics["eval_rewards/margins"] == pytest.approx(sum(margins) / 7, rel=1e-4)
        assert metrics["eval_rewards/accuracies"] == pytest.approx(sum(margin > 0 for margin in margins) / 7)
