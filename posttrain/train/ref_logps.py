"""The ref-logps stage: log-probabilities of the preference pairs under the SFT checkpoint, once.

DPO needs them of every pair in every epoch, and the reference never changes. Computed beforehand they leave the policy
as the only model in memory while it trains.

On a CPU each pair goes through the model by itself, so that a value depends on its pair alone: it is the same to the
last bit for any number of processes, and wherever an earlier run was cut off. Elsewhere pairs of similar length are
batched within their shard, which depends on the data alone as well.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from posttrain.errors import Interrupted
from posttrain.train.dataset import SPLITS, load_tokens
from posttrain.train.loop import quiet_libraries, say
from posttrain.train.lora import load_adapter
from posttrain.train.model import check_embedding, is_adapter, load_model, training_device
from posttrain.train.pairs import group_pairs, packed_length
from posttrain.train.ref_store import (
    CHECKPOINT_FILES,
    TOKEN_FILES,
    Shard,
    digest_of,
    join_shards,
    list_shards,
    write_shard,
)
from posttrain.train.reference import determines, precision
from posttrain.train.shared_prefix import choose_attention, shares_prefix
from posttrain.train.tokenizer import equip, load_tokenizer

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset

    from posttrain.recipe.schema import Dpo, Recipe
    from posttrain.stages.context import Context

TOKENS_AT_ONCE = 16_384  # on a GPU, padding included: two responses of 4,096 tokens, twice
_EVERY = 15.0  # seconds between lines that say how far it is


def starting_checkpoint(context: Context) -> tuple[str | Path, str | Path]:
    """Return the checkpoint that DPO starts from, and the base model, which lies under it where it is an adapter."""
    base = context.inputs.get("cpt") or context.recipe.model.base
    assert base is not None
    return context.inputs.get("sft") or base, base


def load_reference(recipe: Recipe, settings: Dpo, sft: str | Path, base: str | Path, device: Any) -> Any:
    """Load the model that the policy is before its first step, in the policy's precision.

    With LoRA an adapter from the SFT stage stays an adapter, because that is how the policy computes; for full weights
    it is merged.
    """
    weights, quantization = precision(settings, recipe.model)["weights"], settings.quantization

    def load(path: str | Path) -> Any:
        return load_model(path, recipe.model, dtype=weights, quantization=quantization, device=device)

    if not is_adapter(sft):
        return load(sft)
    adapted = load_adapter(load(base), Path(sft), trainable=False)
    # PEFT froze the base when it put the adapter on
    return adapted if settings.lora is not None else adapted.merge_and_unload().requires_grad_(True)


def determined_by(context: Context) -> dict[str, Any]:
    """Return what the reference log-probabilities of this recipe follow from, read from the stages' folders."""
    settings, model = context.recipe.dpo, context.recipe.model
    assert settings is not None
    sft, base = starting_checkpoint(context)
    folders = [sft, base] if is_adapter(sft) else [sft]
    checkpoint = digest_of(folders, CHECKPOINT_FILES, model.revision)
    return determines(settings, model, checkpoint, digest_of([context.inputs["tokenize-preference"]], TOKEN_FILES))


def compute_ref_logps(context: Context) -> None:
    """Write the reference log-probabilities of the training and held-out pairs; every process calls it.

    Raises:
        UserError: If tokenizer and model do not fit each other.
        Interrupted: If a signal stopped it; the shards that are finished stay.
    """
    quiet_libraries()  # before TRL is imported
    from accelerate import PartialState
    from accelerate.utils import broadcast_object_list

    recipe, settings = context.recipe, context.recipe.dpo
    assert settings is not None
    tokens = load_tokens(context.inputs["tokenize-preference"])
    rows = dict(zip(SPLITS, (tokens.train, tokens.held_out), strict=True))
    shards = list_shards({split: len(rows[split]) for split in SPLITS}, context.work)
    device = training_device(recipe.launch)
    # Rank 0 says what is missing: other processes may look only when a fast one has written its first shard.
    missing = [[number for number, shard in enumerate(shards) if not shard.target.exists()]]
    broadcast_object_list(missing)
    remaining = [shards[number] for number in missing[0]]
    pairs = {split: len(rows[split]) for split in SPLITS}
    say(context, f"{pairs['train']:,} pairs to train, {pairs['validation']:,} held out")
    if len(remaining) < len(shards):
        say(context, f"{len(shards) - len(remaining)} of {len(shards)} shards are there already")
    if remaining:
        _compute(context, settings, rows, remaining, device)
    context.reached = "after its last pair; the shards are kept"
    PartialState().wait_for_everyone()
    if context.rank == 0:
        join_shards(shards, context.folder, determined_by(context))
    context.report({"pairs": pairs["train"], "held_out_pairs": pairs["validation"]})


def _compute(
    context: Context, settings: Dpo, rows: dict[str, Dataset], remaining: Sequence[Shard], device: Any
) -> None:
    import numpy as np

    from posttrain.train.trl import ReferenceScorer

    recipe = context.recipe
    sft, base = starting_checkpoint(context)
    tokenizer = load_tokenizer(
        context.inputs.get("sft") or context.inputs.get("cpt") or recipe.model.tokenizer or base, recipe.model
    )
    equip(tokenizer, recipe.model)
    model = load_reference(recipe, settings, sft, base, device)
    check_embedding(model, tokenizer, sft)
    shared, why = shares_prefix(settings, model)
    say(context, f"shared prefixes: {why}")
    if shared:
        choose_attention(model, recipe.model, device)
    scorer = ReferenceScorer(model, settings, recipe, pad=int(tokenizer.pad_token_id), packed=shared)
    budget = None if scorer.device.type == "cpu" else TOKENS_AT_ONCE
    done, total, said = 0, sum(map(len, remaining)), time.monotonic()
    with _stops() as received:
        for first in range(0, len(remaining), context.world_size):
            together = remaining[first : first + context.world_size]
            plans = [plan_batches(rows[shard.split], shard, budget, shared) for shard in together]
            mine = context.rank if context.rank < len(together) else None
            # Where the model is in shards, each forward pass needs all processes.
            passes = max(map(len, plans)) if scorer.sharded else 0 if mine is None else len(plans[mine])
            shard, plan = (together[0], plans[0][:1]) if mine is None else (together[mine], plans[mine])
            values = np.zeros((len(shard), 2), dtype=np.float32)
            for number in range(passes):
                if received:
                    stopped = f"{context.stage} stopped after {done:,} of {total:,} pairs"
                    raise Interrupted(f"{stopped}; the shards that are finished are kept", received[0])
                batch = plan[min(number, len(plan) - 1)]  # again the last, if others have more
                values[batch] = scorer.score([rows[shard.split][shard.start + place] for place in batch])
                if time.monotonic() - said > _EVERY:
                    said = time.monotonic()
                    say(context, f"{done:,} of {total:,} pairs")
            if mine is not None:
                write_shard(shard, values)
            done += sum(map(len, together))


def plan_batches(rows: Dataset, shard: Shard, budget: int | None, shared: bool) -> list[list[int]]:
    """Group the pairs of a shard into batches of at most `budget` tokens, or each by itself if that is None.

    Args:
        rows: The pairs of the shard's split.
        shard: Which of them.
        budget: Tokens of a batch, as far as one pair allows it.
        shared: Whether prompts are computed once, in a packed row.

    Returns:
        Numbers of pairs within the shard.
    """
    import numpy as np
    import pyarrow.compute as pc

    table = rows.data.slice(shard.start, len(shard))
    prompt, chosen, rejected = (
        np.concatenate([pc.list_value_length(chunk).to_numpy() for chunk in table.column(name).chunks]).astype(np.int64)
        for name in ("prompt_ids", "chosen_ids", "rejected_ids")
    )
    if budget is None or not shared:
        return batches(prompt + np.maximum(chosen, rejected), budget)
    lengths = map(packed_length, prompt.tolist(), chosen.tolist(), rejected.tolist())
    return group_pairs(list(lengths), budget)


def batches(longest: np.ndarray, budget: int | None) -> list[list[int]]:
    """Group pairs by length.

    Args:
        longest: The length of each pair's longer response, with its prompt.
        budget: Tokens of a batch at most, both responses and their padding included, as far as one pair allows it. None
            puts each pair by itself.

    Returns:
        Numbers of pairs. The longest come first, so that memory that does not suffice runs out at once.
    """
    import numpy as np

    if budget is None:
        return [[place] for place in range(len(longest))]
    grouped: list[list[int]] = []
    room = 0
    for place in np.argsort(-longest, kind="stable").tolist():
        if not room:
            grouped.append([])
            room = max(budget // (2 * int(longest[place])), 1)
        grouped[-1].append(place)
        room -= 1
    return grouped


@contextmanager
def _stops() -> Iterator[list[int]]:
    """Collect Ctrl-C and SIGTERM instead of dying of them; a second Ctrl-C does not wait."""
    received: list[int] = []

    def receive(number: int, frame: FrameType | None) -> None:
        if received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received.append(number)

    former = {number: signal.signal(number, receive) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
