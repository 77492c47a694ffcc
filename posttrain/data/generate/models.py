"""Tokenizers and models that generation runs in this process: loaded with errors that say which key to change."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posttrain.assets import is_hub_id, pickled_weights
from posttrain.errors import UserError
from posttrain.recipe.schema_generate import RewardModel, Teacher

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_LOADING = threading.Lock()  # torch's default dtype, which loading changes for a while, is the whole process's


def load_tokenizer(teacher: Teacher, key: str = "teacher") -> PreTrainedTokenizerBase:
    """Load a teacher's tokenizer: `tokenizer`, or that of `model` where there is none.

    Args:
        teacher: The section of the recipe.
        key: The section's name, for messages.

    Raises:
        UserError: There is none, or only a slow one.
    """
    if teacher.tokenizer is not None:
        return _tokenizer(teacher.tokenizer, None, teacher.trust_remote_code, f"{key}.tokenizer", "")
    advice = f"; where model is only a server's name for it, say in {key}.tokenizer where the tokenizer is"
    return _tokenizer(teacher.model, teacher.revision, teacher.trust_remote_code, f"{key}.model", advice)


def load_causal(teacher: Teacher, key: str = "teacher") -> PreTrainedModel:
    """Load a teacher for generation, on the accelerator if there is one.

    Raises:
        UserError: There is no such model, or its weights are not in safetensors.
    """
    from transformers import AutoModelForCausalLM

    model, _ = _model(AutoModelForCausalLM, teacher, f"{key}.model")
    return model


def load_reward_tokenizer(reward: RewardModel, key: str = "reward") -> PreTrainedTokenizerBase:
    """Load a reward model's tokenizer.

    Raises:
        UserError: There is none, or only a slow one.
    """
    return _tokenizer(reward.model, reward.revision, reward.trust_remote_code, f"{key}.model", "")


def load_classifier(reward: RewardModel, key: str = "reward") -> PreTrainedModel:
    """Load a reward model, on the accelerator if there is one.

    Raises:
        UserError: There is no such model, its weights are not in safetensors, or it has no head to score with.
    """
    from transformers import AutoModelForSequenceClassification

    model, missing = _model(AutoModelForSequenceClassification, reward, f"{key}.model")
    if missing:
        raise UserError(
            f"{key}.model: {reward.model} has no weights for {', '.join(missing)}, which would be random: it is not a "
            "reward model; name one that was trained as such."
        )
    return model


def device() -> torch.device:
    """Return the accelerator, or the processor where there is none."""
    import torch

    if torch.accelerator.is_available():
        return torch.accelerator.current_accelerator()
    return torch.device("cpu")


def _tokenizer(path: str, revision: str | None, remote: bool, key: str, advice: str) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    _check_folder(path, key, advice)
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, revision=revision, trust_remote_code=remote)
    except (OSError, ValueError, ImportError, KeyError) as error:
        raise UserError(f"{key}: the tokenizer of {path} cannot be loaded: {_short(error, key)}{advice}") from error
    if not tokenizer.is_fast:
        raise UserError(f"{key}: {path} has no fast tokenizer (tokenizer.json).")
    return tokenizer


def _model(kind: Any, section: Teacher | RewardModel, key: str) -> tuple[PreTrainedModel, list[str]]:
    """Load a model; return it and the names of weights that its checkpoint does not have."""
    import torch

    path = section.model
    _check_folder(path, key, "")
    if Path(path).is_dir():
        _check_safetensors(Path(path), key)
    try:
        with _LOADING:
            model, report = kind.from_pretrained(
                path,
                dtype=getattr(torch, section.dtype),
                revision=section.revision,
                trust_remote_code=section.trust_remote_code,
                use_safetensors=True,
                output_loading_info=True,
            )
    except (OSError, ValueError, ImportError, KeyError) as error:
        raise UserError(f"{key}: the model {path} cannot be loaded: {_short(error, key)}") from error
    model.to(device())
    model.eval()
    return model, sorted(report["missing_keys"])


def _check_folder(path: str, key: str, advice: str) -> None:
    if not Path(path).exists() and not is_hub_id(path, bare=True):
        raise UserError(f"{key}: the folder {path} does not exist{advice}.")


def _check_safetensors(folder: Path, key: str) -> None:
    if any(folder.glob("*.safetensors")):
        return
    pickled = pickled_weights(folder)
    if pickled:
        raise UserError(
            f"{key}: {folder} holds its weights as {pickled[0]}, a pickle, which can run any code as it is loaded; "
            "convert them to safetensors."
        )
    raise UserError(f"{key}: {folder} holds no weights (*.safetensors).")


def _short(error: Exception, key: str) -> str:
    """Return what a library said, without the paragraphs that follow."""
    if "trust_remote_code" in str(error):
        section = key.partition(".")[0]
        return f"it comes with code of its own, which is run only with {section}.trust_remote_code=true"
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(". ")
