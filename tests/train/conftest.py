"""A tiny Llama with its tokenizer, and encoded rows to train it on."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

from posttrain.recipe.schema import Dpo, Launch, Recipe, Sft
from posttrain.train.model import new_model
from posttrain.train.packing import pack
from tests.helpers import MODEL, SIZES, make_tokenizer, save_checkpoint


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerBase:
    return make_tokenizer()


@pytest.fixture
def model(tokenizer: PreTrainedTokenizerBase) -> LlamaForCausalLM:
    return new_model(SIZES, tokenizer, seed=1)


@pytest.fixture(scope="session")
def checkpoint(tokenizer: PreTrainedTokenizerBase, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved tiny model with tokenizer and template."""
    return save_checkpoint(tokenizer, tmp_path_factory.mktemp("checkpoint"))


def chat_rows(count: int, seed: int = 0, longest: int = 40) -> Dataset:
    """Rows of random ids of uneven length; the first part of each has no loss."""
    source = random.Random(seed)
    rows: dict[str, list[list[int]]] = {"input_ids": [], "labels": []}
    for _ in range(count):
        ids = [source.randrange(10, SIZES.vocab_size) for _ in range(source.randrange(6, longest))]
        prompt = source.randrange(1, len(ids) - 2)
        rows["input_ids"].append(ids)
        rows["labels"].append([-100] * prompt + ids[prompt:])
    return Dataset.from_dict(rows)


def pair_rows(count: int, seed: int = 0) -> Dataset:
    """Preference pairs of random ids of uneven length."""
    source = random.Random(seed)

    def ids(low: int, high: int) -> list[int]:
        return [source.randrange(10, SIZES.vocab_size) for _ in range(source.randrange(low, high))]

    return Dataset.from_dict(
        {
            "prompt_ids": [ids(4, 20) for _ in range(count)],
            "chosen_ids": [ids(2, 20) for _ in range(count)],
            "rejected_ids": [ids(2, 20) for _ in range(count)],
        }
    )


def packed(rows: Dataset, length: int, strategy: str) -> Dataset:
    """Pack rows as the tokenize stage does."""
    return Dataset(pack(rows.with_format("arrow")[:], length, strategy))


@pytest.fixture
def supervised(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> Callable[..., Any]:
    """Make an SFT trainer on rows: `supervised(model, rows, evaluation=None, peft_config=None, **settings)`."""
    from posttrain.train.trl import supervised_trainer

    def make(
        model: Any, rows: Dataset, evaluation: Dataset | None = None, peft_config: Any = None, **settings: Any
    ) -> Any:
        sft = Sft(**({"max_length": 64, "learning_rate": 1e-3, "logging_steps": 1} | settings))
        recipe = Recipe(name="test", model=MODEL, sft=sft, launch=Launch(cpu=True))
        if sft.packing != "none":
            rows = packed(rows, sft.max_length, sft.packing)
        return supervised_trainer(
            sft,
            recipe,
            folder=tmp_path / "work",
            world_size=1,
            eval_on_start=evaluation is not None,
            model=model,
            train_dataset=rows,
            eval_dataset=evaluation,
            processing_class=tokenizer,
            peft_config=peft_config,
        )

    return make


@pytest.fixture
def preference(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> Callable[..., Any]:
    """Make a DPO trainer on pairs: `preference(policy, reference, rows, evaluation=None, packed=None, **settings)`."""
    from posttrain.train.trl import preference_trainer

    def make(
        policy: Any,
        reference: Any,
        rows: Dataset,
        evaluation: Dataset | None = None,
        peft_config: Any = None,
        packed: int | None = None,
        **settings: Any,
    ) -> Any:
        dpo = Dpo(**({"max_length": 64, "learning_rate": 1e-3, "logging_steps": 1} | settings))
        recipe = Recipe(name="test", model=MODEL, dpo=dpo, launch=Launch(cpu=True))
        return preference_trainer(
            dpo,
            recipe,
            folder=tmp_path / "work",
            world_size=1,
            eval_on_start=evaluation is not None,
            model=policy,
            ref_model=reference,
            packed=packed,
            train_dataset=rows,
            eval_dataset=evaluation,
            processing_class=tokenizer,
            peft_config=peft_config,
        )

    return make
