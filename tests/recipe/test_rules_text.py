"""The mixture of `cpt.text`: shares that make one, and one way of saying how long to train."""

from __future__ import annotations

import pytest

from posttrain.recipe import load
from posttrain.train.batch import steps_asked
from tests.recipe.conftest import Load, Problems

HEAD = "name: x\nmodel: {base: some/model}\ncpt:\n"


def texts(*entries: str) -> str:
    return HEAD + "  text:\n" + "".join(f"    - {{{entry}}}\n" for entry in entries)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            texts("path: a, share: 0.5", "path: b"),
            "x.yaml:6: cpt.text.1.share: missing, while another text has one; give each text a share, or none of them",
        ),
        (
            texts("path: a, share: 0.3", "path: b, share: 0.3", "path: c, share: 0.3"),
            "x.yaml:5: cpt.text: the shares 0.3 + 0.3 + 0.3 make 0.9; they must make 1",
        ),
        (texts("path: a, share: 1.5"), "x.yaml:5: cpt.text.0.share: must be more than 0 and at most 1, not 1.5"),
        (texts("path: a, share: half"), "x.yaml:5: cpt.text.0.share: must be a number, not 'half' (text)"),
        (
            texts("path: a, repeat: false"),
            "x.yaml:5: cpt.text.0.repeat: only a text with a share ends the training; give shares, or leave repeat out",
        ),
        (
            texts("path: a") + "  tokens: 1e9\n  max_steps: 5\n",
            "x.yaml:6: cpt.tokens: cpt.max_steps says how long to train too; keep one of them",
        ),
        (
            texts("path: a") + "  tokens: 1e9\n  num_train_epochs: 2\n",
            "x.yaml:6: cpt.tokens: cpt.num_train_epochs says how long to train too; keep one of them",
        ),
        (
            texts("path: a") + "  tokens: 1000\n  max_length: 64\n  global_batch_size: 16\n",
            "x.yaml:6: cpt.tokens: 1000 is less than one step of 1024 tokens (16 rows of 64); raise it",
        ),
        (texts("path: a") + "  tokens: 0\n", "x.yaml:6: cpt.tokens: must be 1 or more, not 0.0"),
    ],
)
def test_what_does_not_agree(problems: Problems, text: str, problem: str) -> None:
    assert problems(text) == [problem]


def test_what_is_wrong_is_said_together(problems: Problems) -> None:
    found = problems(
        texts("path: a, share: 0.2", "path: b, share: 0.2") + "  tokens: 1e9\n  max_steps: 5\n  optim: adamx\n"
    )
    assert len(found) == 3


@pytest.mark.parametrize("shares", [(0.333, 0.333, 0.333), (0.3, 0.3, 0.3, 0.1), (1,)])
def test_shares_that_make_one_but_for_rounding(load_text: Load, shares: tuple[float, ...]) -> None:
    text = texts(*(f"path: p{number}, share: {share}" for number, share in enumerate(shares)))
    recipe = load_text(text + "  tokens: 165e9\n").recipe
    assert recipe.cpt is not None
    assert [source.share for source in recipe.cpt.text] == list(shares)
    assert recipe.cpt.tokens == 165e9


def test_poro2_8b_base_has_the_numbers_of_its_card() -> None:
    recipe = load("8b-base").recipe
    cpt = recipe.cpt
    assert cpt is not None
    assert [(source.path.split("/")[1], source.share) for source in cpt.text] == [
        ("fineweb-2", 0.3),
        ("fineweb-edu", 0.3),
        ("starcoderdata", 0.3),
        ("finemath", 0.1),
    ]
    assert (cpt.tokens, cpt.max_length, cpt.global_batch_size, cpt.per_device_train_batch_size) == (165e9, 8192, 512, 1)
    assert (cpt.optim, cpt.weight_decay, cpt.adam_beta1, cpt.adam_beta2) == ("adamw_torch", 0.1, 0.9, 0.95)
    assert (cpt.max_grad_norm, cpt.learning_rate, cpt.warmup_ratio) == (1.0, 3e-4, 0.05)
    assert (cpt.lr_scheduler_type, cpt.lr_scheduler_kwargs) == ("cosine_with_min_lr", {"min_lr": 1e-8})
    assert recipe.model.dtype == "bfloat16"
    assert steps_asked(cpt) == 39_339
    assert (recipe.sft, recipe.dpo) == (None, None)
