"""Prompts computed once give what TRL gives: loss, gradients and every figure it logs, for each kind of loss."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from datasets import Dataset
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    Gemma2Config,
    GPT2Config,
    GPTNeoXConfig,
    LlamaForCausalLM,
    MistralConfig,
    PretrainedConfig,
    PreTrainedTokenizerBase,
    Qwen3Config,
)
from trl import DPOTrainer
from trl.trainer.utils import add_fused_lm_head

from posttrain.errors import UserError
from posttrain.recipe.schema import Dpo, Launch, Lora, Recipe
from posttrain.train.lora import lora_config
from posttrain.train.pairs import KEYS, PARTS, dense_mask, group_pairs, lay_out, length_of
from posttrain.train.shared_prefix import problem_of, shares_prefix, tokens_per_row
from posttrain.train.trl.packed import PackedTrainer
from posttrain.train.trl.reference import ReferenceScorer, pair_log_probabilities
from posttrain.train.trl.shared_prefix import PairCollator, _block_mask, add_shared_prefix
from tests.helpers import MODEL, SIZES
from tests.train.conftest import pair_rows
from tests.train.test_equivalence import assert_same, gradients

Make = Callable[..., Any]
TIMES = ("tokens_per_second", "runtime", "packing_efficiency", "per_second", "flos", "epoch")
# A reward is beta times a difference of sums of some 50 nats, and those are equal to 1e-5 of their size.
REWARD = 0.1 * 50 * 1e-6
SHAPE = {
    "vocab_size": SIZES.vocab_size,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 0,
}
ARCHITECTURES: dict[str, PretrainedConfig] = {
    "gpt-neox": GPTNeoXConfig(**SHAPE, intermediate_size=128),
    "qwen3": Qwen3Config(**SHAPE, intermediate_size=128, num_key_value_heads=2, head_dim=16),
    "gpt2": GPT2Config(**SHAPE),
}
LOSSES: dict[str, dict[str, Any]] = {
    "sigmoid": {},
    "ipo": {"loss_type": ["ipo"]},
    "hinge": {"loss_type": ["hinge"]},
    "sigmoid_norm": {"loss_type": ["sigmoid_norm"]},
    "apo_zero": {"loss_type": ["apo_zero"]},
    "aot": {"loss_type": ["aot"]},
    "with sft": {"loss_type": ["sigmoid", "sft"], "trainer": {"loss_weights": [1.0, 0.5]}},
    "ld_alpha": {"trainer": {"ld_alpha": 0.4}},
    "weighting": {"trainer": {"use_weighting": True}},
    "checkpointing": {"gradient_checkpointing": True},
}


def shifted(model: Any) -> Any:
    """Return a copy that a step of training away from the model, so that its ratios to it are not one."""
    moved = copy.deepcopy(model)
    with torch.no_grad():
        torch.manual_seed(5)
        for parameter in moved.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
    return moved


def figures(trainer: Any) -> dict[str, float]:
    """Return what the first step logged, but for times."""
    return {
        name: value for name, value in trainer.state.log_history[0].items() if not any(part in name for part in TIMES)
    }


def compare(
    preference: Make,
    model: Any,
    rows: Dataset,
    *,
    stock: dict[str, Any],
    ours: dict[str, Any],
    budget: int = 64,
    figures_too: bool = True,
    lora: Lora | None = None,
    **settings: Any,
) -> None:
    """Take the gradients of a step both ways, and compare them and what was logged."""
    results = []
    for packed, sizes in ((None, stock), (budget, ours)):
        reference = copy.deepcopy(model) if lora is None else None
        trainer = preference(
            shifted(model) if lora is None else copy.deepcopy(model),
            reference,
            rows,
            peft_config=lora_config(lora) if lora is not None else None,
            packed=packed,
            global_batch_size=len(rows),
            max_steps=1,
            **(settings | sizes),
        )
        trainer.beta = 0.1
        if lora is not None:
            with torch.no_grad():
                for name, parameter in trainer.model.named_parameters():
                    if "lora_B" in name:
                        parameter += 0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
            trainer._adapter.clear()
        # The policy has moved away from the reference on purpose.
        trainer._start_tolerance = lambda inputs: float("inf")
        results.append((gradients(trainer), figures(trainer)))
    (stock_step, stock_figures), (our_step, our_figures) = results
    assert_same(stock_step, our_step)
    if figures_too:
        assert stock_figures.keys() == our_figures.keys()
        for name, value in stock_figures.items():
            assert our_figures[name] == pytest.approx(value, rel=1e-5, abs=REWARD if "rewards" in name else 1e-7), name


WHOLE = {"per_device_train_batch_size": 6}


@pytest.mark.parametrize("loss", LOSSES)
def test_a_step_equals_trls(model: LlamaForCausalLM, preference: Make, loss: str) -> None:
    """Six pairs in several rows, against one padded batch of TRL's."""
    compare(preference, model, pair_rows(6), stock=WHOLE, ours=WHOLE, **LOSSES[loss])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_other_architectures(preference: Make, architecture: str) -> None:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(ARCHITECTURES[architecture])
    compare(preference, model, pair_rows(6), stock=WHOLE, ours=WHOLE)


def test_accumulation(model: LlamaForCausalLM, preference: Make) -> None:
    """What six micro-batches would be goes into fewer rows; TRL's figures are those of its one batch."""
    one = {"per_device_train_batch_size": 1}
    compare(preference, model, pair_rows(6), stock=WHOLE, ours=one)
    compare(preference, model, pair_rows(6), stock=one, ours=one, figures_too=False)


@pytest.mark.parametrize("budget", [1, 40, 10_000])
def test_any_budget(model: LlamaForCausalLM, preference: Make, budget: int) -> None:
    compare(preference, model, pair_rows(6), stock=WHOLE, ours={"per_device_train_batch_size": 2}, budget=budget)


def test_lora_with_its_adapter_off(model: LlamaForCausalLM, preference: Make) -> None:
    compare(preference, model, pair_rows(6), stock=WHOLE, ours=WHOLE, lora=Lora(r=4))


def test_lora_with_checkpointing(model: LlamaForCausalLM, preference: Make) -> None:
    compare(
        preference, model, pair_rows(6), stock=WHOLE, ours=WHOLE, lora=Lora(r=4), gradient_checkpointing=True, budget=50
    )


def test_grouped_losses_keep_their_batches(model: LlamaForCausalLM, preference: Make) -> None:
    """A loss that sorts the pairs of a batch gets the batches that TRL would give it."""
    pairs = {"per_device_train_batch_size": 2}
    compare(preference, model, pair_rows(6), stock=pairs, ours=pairs, loss_type=["aot"], figures_too=False)


def test_stored_references(model: LlamaForCausalLM, preference: Make, tokenizer: PreTrainedTokenizerBase) -> None:
    """Scored in packed rows or padded, and trained on either way: one loss."""
    rows = pair_rows(6)
    recipe = Recipe(name="test", model=MODEL, dpo=Dpo(), launch=Launch(cpu=True))
    results = []
    for packed in (False, True):
        scorer = ReferenceScorer(copy.deepcopy(model), Dpo(), recipe, pad=int(tokenizer.pad_token_id), packed=packed)
        values = scorer.score(list(rows))
        columns = {"ref_chosen_logps": values[:, 0].tolist(), "ref_rejected_logps": values[:, 1].tolist()}
        stored = Dataset.from_dict(rows.to_dict() | columns)
        trainer = preference(
            shifted(model), None, stored, packed=64 if packed else None, global_batch_size=6, max_steps=1, **WHOLE
        )
        trainer._start_tolerance = lambda inputs: float("inf")
        results.append((gradients(trainer), figures(trainer), values))
    assert_same(results[0][0], results[1][0])
    assert results[1][1] == pytest.approx(results[0][1], rel=1e-5, abs=1e-7)
    assert torch.allclose(torch.tensor(results[0][2]), torch.tensor(results[1][2]), rtol=1e-6)


def test_evaluation_is_the_same(model: LlamaForCausalLM, preference: Make) -> None:
    found = []
    for packed in (None, 64):
        trainer = preference(
            shifted(model),
            copy.deepcopy(model),
            pair_rows(4),
            pair_rows(5, seed=2),
            packed=packed,
            global_batch_size=4,
            per_device_eval_batch_size=2,
            max_steps=1,
        )
        found.append({name: value for name, value in trainer.evaluate().items() if name.startswith("eval_")})
    assert found[1] == pytest.approx(found[0], rel=1e-5, abs=REWARD)


def test_a_step_counts_its_pairs(model: LlamaForCausalLM, preference: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each optimiser step sees `global_batch_size` pairs, each once, and rows keep to the budget."""
    steps: list[list[int]] = []
    fullest = 0
    parts_of = PackedTrainer._parts

    def spied(self: Any, batches: Any) -> Any:
        nonlocal fullest
        parts = parts_of(self, batches)
        rows = [row for part in parts for row, _ in part.rows]
        steps.append([int(row["input_ids"].shape[0] // 2) for row in rows])
        assert sum(weight for part in parts for _, weight in part.rows) == pytest.approx(len(parts))
        fullest = max(fullest, *(int((row[PARTS] >= 0).sum()) for row in rows if row["input_ids"].shape[0] > 2))
        return parts

    monkeypatch.setattr(PackedTrainer, "_parts", spied)
    trainer = preference(
        copy.deepcopy(model), copy.deepcopy(model), pair_rows(10), packed=90, global_batch_size=4, num_train_epochs=1
    )
    trainer.train()
    assert [sum(pairs) for pairs in steps] == [4, 4, 2]
    assert min(map(len, steps)) < 4, "nothing was packed"
    assert fullest <= 90
    assert trainer.state.global_step == 3


def scored_row(model: Any, pairs: list[dict[str, Any]]) -> torch.Tensor:
    """Return the log-probability of each response token of a packed row."""
    batch = PairCollator(pad=0)(pairs)
    labels = batch["input_ids"].masked_fill(batch["completion_mask"] == 0, -100)
    with torch.no_grad():
        output = model(
            input_ids=batch["input_ids"], labels=labels, fused_lm_head=True, **{name: batch[name] for name in KEYS}
        )
    values: torch.Tensor = output.log_probs
    return values


def test_nothing_leaks(model: LlamaForCausalLM) -> None:
    """A changed response leaves the other one's log-probabilities and the next pair's as they were, to the bit."""
    add_fused_lm_head(model.eval())
    add_shared_prefix(model)
    pairs = [dict(row) for row in pair_rows(3)]
    before = scored_row(model, pairs)
    count = len(pairs)
    for changed, name in ((0, "chosen_ids"), (1, "rejected_ids"), (2, "chosen_ids")):
        others = copy.deepcopy(pairs)
        others[changed][name] = [(token + 7) % 300 + 5 for token in others[changed][name]]
        after = scored_row(model, others)
        row = changed if name == "chosen_ids" else count + changed
        kept = [number for number in range(2 * count) if number != row]
        assert torch.equal(after[kept], before[kept])
        assert not torch.equal(after[row], before[row])


def test_a_changed_prompt_changes_its_pair_alone(model: LlamaForCausalLM) -> None:
    add_fused_lm_head(model.eval())
    add_shared_prefix(model)
    pairs = [dict(row) for row in pair_rows(3)]
    others = copy.deepcopy(pairs)
    others[1]["prompt_ids"][0] += 1
    before, after = scored_row(model, pairs), scored_row(model, others)
    assert [torch.equal(before[number], after[number]) for number in range(6)] == [True, False, True] * 2


def test_layout() -> None:
    pairs = [{"prompt_ids": [1, 2, 3], "chosen_ids": [4, 5], "rejected_ids": [6]}]
    row = {name: values[0].tolist() for name, values in lay_out(pairs, 5, pad=0, multiple=4).items()}
    assert row == {
        "packed_ids": [1, 2, 3, 4, 3, 0, 0, 0],
        "packed_positions": [0, 1, 2, 3, 2, 0, 0, 0],
        "packed_parts": [0, 0, 1, 1, 2, -1, -1, -1],
        "packed_targets": [-1, -1, 2, 3, 6, -1, -1, -1],
    }
    assert length_of(pairs[0]) == 5
    mask = dense_mask(torch.tensor([row["packed_parts"]]))[0, 0].int().tolist()
    assert mask[:5] == [
        [1, 0, 0, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0, 0, 0],
        [1, 1, 1, 1, 0, 0, 0, 0],
        [1, 1, 0, 0, 1, 0, 0, 0],
    ]


def test_block_mask_is_the_dense_one() -> None:
    from torch.nn.attention.flex_attention import create_mask

    parts = lay_out([dict(row) for row in pair_rows(4)], 64, pad=0, multiple=128)[PARTS]
    block = _block_mask(parts)
    length = parts.shape[1]
    assert block.shape[-2:] == (length, length)
    assert torch.equal(create_mask(block.mask_mod, 1, 1, length, length, device="cpu"), dense_mask(parts))


def test_rows_are_split_for_other_processes() -> None:
    lengths = [10, 20, 30, 5, 5]
    assert group_pairs(lengths, 100) == [[0, 1, 2, 3, 4]]
    for rows in range(1, 6):
        groups = group_pairs(lengths, 100, at_least=rows)
        assert len(groups) == rows
        assert sorted(number for group in groups for number in group) == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="5 pairs cannot be in 6 rows"):
        group_pairs(lengths, 100, at_least=6)


def build(config: PretrainedConfig, attention: str = "sdpa") -> Any:
    return AutoModelForCausalLM.from_config(config, attn_implementation=attention)


SMALL = {**SHAPE, "intermediate_size": 128}
REFUSED: dict[str, tuple[Any, str]] = {
    "sliding window": (lambda: build(MistralConfig(**SMALL, sliding_window=32)), "attends to 32 tokens back"),
    "sliding layers": (
        lambda: build(Gemma2Config(**SMALL, head_dim=16, sliding_window=32), "eager"),
        "runs attention as eager",
    ),
    "alibi": (
        lambda: build(BloomConfig(vocab_size=400, hidden_size=64, n_layer=2, n_head=4), "eager"),
        "BloomForCausalLM runs attention as eager",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_models_that_cannot_are_left_alone_and_it_is_said(name: str) -> None:
    make, why = REFUSED[name]
    model = make()
    assert shares_prefix(Dpo(max_length=64), model)[0] is False
    assert why in shares_prefix(Dpo(max_length=64), model)[1]
    with pytest.raises(UserError, match=r"dpo\.shared_prefix: on, but "):
        shares_prefix(Dpo(max_length=64, shared_prefix="on"), model)


def test_a_window_that_no_pair_reaches_is_no_obstacle() -> None:
    model = build(MistralConfig(**SMALL, sliding_window=4096))
    assert shares_prefix(Dpo(max_length=64), model)[0] is True


def test_attention_that_ignores_the_mask_is_found_out(model: LlamaForCausalLM) -> None:
    """A model of which nothing is known is tried out, and the trial leaves the random numbers as they were."""
    state = torch.random.get_rng_state()
    assert problem_of(model, 64) is None
    assert torch.equal(torch.random.get_rng_state(), state)

    class Causal(LlamaForCausalLM):
        def forward(self, *args: Any, attention_mask: Any = None, **kwargs: Any) -> Any:
            return super().forward(*args, **kwargs)

    class CausalBody(type(model.model)):  # type: ignore[misc]
        def forward(self, *args: Any, attention_mask: Any = None, **kwargs: Any) -> Any:
            return super().forward(*args, **kwargs)

    class Ignoring(LlamaForCausalLM):
        def __init__(self, config: Any) -> None:
            super().__init__(config)
            self.model = CausalBody(config)

    assert "gives other log-probabilities with a mask of pairs" in str(problem_of(Ignoring(model.config), 64))


def test_how_long_a_row_is() -> None:
    recipe = Recipe(name="test", launch=Launch(cpu=True))
    assert tokens_per_row(Dpo(max_length=4096, per_device_train_batch_size=2), recipe) == 1024
    assert tokens_per_row(Dpo(max_length=100, per_device_train_batch_size=2), recipe) == 200
    assert tokens_per_row(Dpo(max_length=4096, tokens_per_row=9000), recipe) == 9000


def test_log_probabilities_in_half_precision(model: LlamaForCausalLM) -> None:
    """In bfloat16 both ways round, each in its own batch; the difference is that of rounding."""
    half = copy.deepcopy(model).to(torch.bfloat16).eval()
    add_fused_lm_head(half)
    add_shared_prefix(half)
    batch = PairCollator(pad=0)([dict(row) for row in pair_rows(4)])
    padded = {name: values for name, values in batch.items() if name not in KEYS}
    with torch.no_grad():
        expected = torch.stack(pair_log_probabilities(half, padded, None))
        found = torch.stack(pair_log_probabilities(half, batch, None))
    assert torch.allclose(found, expected, rtol=0.01)


def test_stock_trainer_is_trls(model: LlamaForCausalLM, preference: Make) -> None:
    """The peer of these tests computes its loss by TRL's own code, in padded batches."""
    trainer = preference(copy.deepcopy(model), copy.deepcopy(model), pair_rows(2), global_batch_size=2, max_steps=1)
    assert trainer.packs is None
    assert isinstance(trainer, DPOTrainer)
    assert isinstance(trainer.accelerator, Accelerator)
