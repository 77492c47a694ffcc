"""Whether DPO computes each prompt once for both responses of a pair, or leaves it to TRL's padded batches."""

from __future__ import annotations

import copy
from typing import Any

from posttrain.errors import UserError
from posttrain.recipe.schema import Dpo, Model, Recipe
from posttrain.train.model import uses_cpu
from posttrain.train.pairs import length_of
from posttrain.train.stand_in import shrink

# On a processor a product of matrices with so many rows is as fast for each row as a larger one, and attention costs
# the square of the row's length.
CPU_TOKENS = 1024
TOLERANCE = 1e-4  # relative, of log-probabilities in float32
FLEX = "flex_attention"
_TAKES_MASK = ("sdpa", FLEX)
_PAIRS = (
    {"prompt_ids": list(range(3, 19)), "chosen_ids": list(range(20, 32)), "rejected_ids": list(range(33, 40))},
    {"prompt_ids": [40, 41], "chosen_ids": [42, 43, 44], "rejected_ids": list(range(45, 57))},
)


def tokens_per_row(settings: Dpo, recipe: Recipe) -> int:
    """Return how many tokens a packed row has at most, unless a single pair is longer."""
    if settings.tokens_per_row is not None:
        return settings.tokens_per_row
    whole = settings.per_device_train_batch_size * settings.max_length
    return min(whole, CPU_TOKENS) if uses_cpu(recipe.launch) else whole


def shares_prefix(settings: Dpo, model: Any) -> tuple[bool, str]:
    """Decide by `dpo.shared_prefix` and the model.

    Args:
        settings: The `dpo` section.
        model: The policy as it was loaded, an adapter included.

    Returns:
        Whether prompts are shared, and what to tell the user.

    Raises:
        UserError: If the recipe says `on` and the model or another setting does not allow it.
    """
    if settings.shared_prefix == "off":
        return False, "off, as the recipe says"
    problem = _problem_of_settings(settings) or problem_of(model, settings.max_length)
    if problem is None:
        return True, "on; each prompt is computed once for both responses"
    if settings.shared_prefix == "on":
        raise UserError(f"dpo.shared_prefix: on, but {problem}; set it to off, or to auto")
    return False, f"off, because {problem}"


def _problem_of_settings(settings: Dpo) -> str | None:
    if settings.trainer.get("truncation_mode") == "keep_end":
        return "dpo.trainer.truncation_mode is keep_end, which may cut the two sequences of a pair differently"
    return None


def choose_attention(model: Any, settings: Model, device: Any) -> str:
    """Have a model on a GPU run FlexAttention, which leaves out the blocks in which nobody attends to anybody.

    Args:
        model: A model that shares prefixes, an adapter included.
        settings: The recipe's model section; an attention that it names stays.
        device: Where the model computes.

    Returns:
        The attention that runs.
    """
    from accelerate.utils import is_peft_model

    inner = model.get_base_model() if is_peft_model(model) else model
    if device.type == "cuda" and settings.attn_implementation is None and inner._supports_flex_attn:
        inner.set_attn_implementation(FLEX)
    return str(inner.config.get_text_config()._attn_implementation)


def problem_of(model: Any, max_length: int) -> str | None:
    """Say why a model cannot compute pairs in packed rows, or return None if it can.

    What its configuration does not tell is tried out: a tiny model of the same class must give the same
    log-probabilities both ways.

    Args:
        model: A causal language model, or one with an adapter.
        max_length: Tokens that a sequence has at most.
    """
    from accelerate.utils import is_peft_model

    inner = model.get_base_model() if is_peft_model(model) else model
    config = inner.config.get_text_config()
    name, attention = type(inner).__name__, str(config._attn_implementation)
    if attention not in _TAKES_MASK:
        return f"{name} runs attention as {attention}, which takes no mask of pairs; {_TAKES_MASK[0]} does"
    if getattr(inner, "_is_stateful", False):
        return f"{name} carries a state from token to token"
    if hasattr(config, "output_router_logits") and getattr(config, "router_aux_loss_coef", None):
        return f"{name} balances its experts over all tokens of a batch, and these would be others"
    window = _window(config)
    if window is not None and window < max_length:
        return f"{name} attends to {window:,} tokens back, and dpo.max_length is {max_length:,}"
    return _try_out(inner, name)


def _window(config: Any) -> int | None:
    """Return the length of a sliding window of attention, if any layer has one."""
    window = getattr(config, "sliding_window", None)
    if window is None or getattr(config, "use_sliding_window", True) is False:
        return None
    kinds = getattr(config, "layer_types", None)
    return int(window) if kinds is None or "sliding_attention" in kinds else None


def _try_out(model: Any, name: str) -> str | None:
    import torch
    from trl.trainer.utils import add_fused_lm_head

    from posttrain.train.trl.reference import pair_log_probabilities
    from posttrain.train.trl.shared_prefix import KEYS, PairCollator, add_shared_prefix

    config = copy.deepcopy(model.config)
    text = config.get_text_config()
    shrink(text)
    text.vocab_size = 64
    for key in ("bos_token_id", "eos_token_id", "pad_token_id"):
        setattr(text, key, 0)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    if getattr(text, "sliding_window", None) is not None:
        text.sliding_window = 1024  # that it is long enough has been seen
    kinds = set(getattr(text, "layer_types", None) or ())
    if not kinds <= {"full_attention", "sliding_attention"}:
        return f"{name} has layers of the kinds {', '.join(sorted(kinds))}"
    with torch.random.fork_rng(devices=[]), torch.device("cpu"), torch.no_grad():
        torch.manual_seed(0)
        try:
            tiny = type(model)(config).float().eval()
            tiny.set_attn_implementation("sdpa")
            add_fused_lm_head(tiny)
            add_shared_prefix(tiny)
            batch = PairCollator(pad=0)(_PAIRS)
            padded = {key: value for key, value in batch.items() if key not in KEYS}
            expected = torch.stack(pair_log_probabilities(tiny, padded, None))
            found = torch.stack(pair_log_probabilities(tiny, batch, None))
        except Exception as error:  # noqa: BLE001 - an architecture may refuse in any way; the answer is "not this one"
            return f"{name} cannot be tried out with a mask of pairs ({type(error).__name__}: {error})"
    difference = float(((found - expected) / expected).abs().max())
    if not difference <= TOLERANCE:
        return f"{name} gives other log-probabilities with a mask of pairs, by {difference:.1%} in a trial"
    return None


def describe_rows(rows: Any, budget: int) -> str:
    """Say how many tokens sharing saves, from the first thousand pairs."""
    pairs = [rows[number] for number in range(min(len(rows), 1000))]
    packed = sum(map(length_of, pairs))
    twice = sum(2 * len(pair["prompt_ids"]) + len(pair["chosen_ids"]) + len(pair["rejected_ids"]) for pair in pairs)
    return f"{packed / max(twice, 1):.0%} of the tokens of separate sequences, in rows of up to {budget:,}"
