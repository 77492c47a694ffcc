"""Names that only a trainer would look up, and what two stages have to agree on."""

from __future__ import annotations

import pytest

from posttrain.errors import UserError
from posttrain.recipe import load
from posttrain.recipe.names import LOSSES, names


def problems(*overrides: str) -> list[str]:
    with pytest.raises(UserError) as caught:
        load("tiny", overrides)
    return caught.value.problems


def test_names_are_those_of_the_libraries() -> None:
    from transformers import SchedulerType
    from transformers.training_args import OptimizerNames

    assert set(names("optim")) == {name.value for name in OptimizerNames}
    assert set(names("lr_scheduler_type")) == {name.value for name in SchedulerType}


def test_losses_are_those_of_trl() -> None:
    import inspect

    from trl import DPOTrainer

    source = inspect.getsource(DPOTrainer._compute_loss)
    assert all(f'loss_type == "{loss}"' in source for loss in LOSSES)
    assert source.count('loss_type == "') == len(LOSSES)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("sft.optim=adamw_torc", "sft.optim: there is no 'adamw_torc'; did you mean adamw_torch?"),
        ("cpt.lr_scheduler_type=cosin", "cpt.lr_scheduler_type: there is no 'cosin'; did you mean cosine?"),
        ("dpo.loss_type=[sigmoid, hinje]", "dpo.loss_type: there is no 'hinje'; did you mean hinge?"),
        ("model.chat_template=tokenizer", "model.chat_template: a new model needs a built-in template"),
        ("sft.warmup_ratio=1", "sft.warmup_ratio: must be at least 0 and below 1"),
    ],
)
def test_a_name_that_a_trainer_would_refuse(override: str, message: str) -> None:
    (problem,) = problems(override)
    assert message in problem


def test_a_continued_adapter_is_the_same_in_both_stages() -> None:
    kept = "sft.lora={r: 8, merge: false}"
    (problem,) = problems(kept, "dpo.lora={r: 64}")
    assert "dpo.lora.r: differs from sft.lora.r" in problem
    load("tiny", [kept, "dpo.lora={r: 8}"])
    load("tiny", ["sft.lora={r: 8}", "dpo.lora={r: 64}"])
    load("tiny", [kept])  # DPO on all weights merges it
