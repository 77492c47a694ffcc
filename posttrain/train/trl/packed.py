"""Training on packed rows: the pairs of an optimiser step, each row of them under a budget of tokens.

The data loader, the sampler and gradient accumulation stay transformers': of each optimiser step this process gets
the pairs it would get otherwise, and only their grouping into forward passes is decided here. Each row's loss counts
by its pairs, and each figure that TRL logs by the pairs or tokens it is a mean of, so that the result is that of one
batch with all the pairs.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, islice, pairwise
from typing import Any

import torch
from accelerate.utils import DistributedType

from posttrain.train.pairs import IDS, NOTHING, PARTS, PairBatch, group_pairs, length_of
from posttrain.train.trl.base import BuildTrainer
from posttrain.train.trl.shared_prefix import PairCollator

# Losses that compare pairs with others of their batch, or weigh them by its tokens: which pairs are together matters.
GROUPED_LOSSES = frozenset({"aot", "aot_unpaired", "sft"})
_TOTAL_TOKENS = "num_tokens"  # the one figure that is a sum


@dataclass
class StepPart:
    """What stands for one micro-batch of an optimiser step: any number of rows.

    Attributes:
        rows: Batches of `PairCollator`, each with what its mean loss counts.
        last: Whether the step ends with it.
    """

    rows: list[tuple[dict[str, torch.Tensor], float]] = field(default_factory=list)
    last: bool = False


def keep_pairs(pairs: list[dict[str, Any]]) -> PairBatch:
    """Collate a micro-batch: leave it as it is."""
    return PairBatch(pairs)


class PackedTrainer(BuildTrainer):
    """What a DPO trainer does with rows of whole steps. A mixin, placed before TRL's trainer.

    Attributes:
        packs: The collator of packed rows; None trains on TRL's padded batches.
        budget: Tokens of a row at most, except for a pair that is longer.
    """

    packs: PairCollator | None = None
    budget = 0
    _weight = 1.0
    _metrics: dict[str, dict[str, list[float]]]  # TRL's, as is the next
    _total_train_tokens: int

    def get_batch_samples(self, epoch_iterator: Iterator[Any], num_batches: int, device: Any) -> tuple[list[Any], Any]:
        if self.packs is None:
            samples: tuple[list[Any], Any] = super().get_batch_samples(epoch_iterator, num_batches, device)  # type: ignore[misc]
            return samples
        return self._parts(list(islice(epoch_iterator, num_batches))), None

    def _parts(self, batches: Sequence[PairBatch]) -> list[StepPart]:
        """Return the rows of a step, spread over as many parts as there are micro-batches."""
        assert self.packs is not None
        pairs = [pair for batch in batches for pair in batch.pairs]
        parts = [StepPart() for _ in batches]
        if not pairs:
            return parts
        grouped = not GROUPED_LOSSES.isdisjoint(self.loss_types)  # type: ignore[attr-defined]
        if grouped:
            ends = list(accumulate((len(batch.pairs) for batch in batches), initial=0))
            groups = [list(range(start, end)) for start, end in pairwise(ends)]
        else:
            groups = self._groups(pairs)
        rows = []
        for group in groups:  # transformers divides each loss by the number of micro-batches
            weight = 1.0 if grouped else len(group) * len(batches) / len(pairs)
            rows.append((self.packs([pairs[number] for number in group]), weight))
        # From the end: the last part is the one that exchanges gradients, so it must not be empty.
        for number, row in enumerate(reversed(rows)):
            parts[-1 - number * len(parts) // max(len(rows), len(parts))].rows.insert(0, row)
        parts[-1].last = True
        return parts

    def _groups(self, pairs: Sequence[Mapping[str, Any]]) -> list[list[int]]:
        lengths = [length_of(pair) for pair in pairs]
        groups = group_pairs(lengths, self.budget)
        accelerator = self.accelerator  # type: ignore[attr-defined]
        if accelerator.num_processes > 1:
            # Weights in shards are gathered in every forward pass, so each process needs as many.
            rows = torch.tensor([len(groups)], device=accelerator.device)
            groups = group_pairs(lengths, self.budget, at_least=int(accelerator.gather(rows).max()))
        return groups

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        if not isinstance(inputs, StepPart):
            return super().training_step(model, inputs, num_items_in_batch)
        loss = torch.zeros((), device=self.args.device)
        for number, (row, weight) in enumerate(inputs.rows):
            ends = number == len(inputs.rows) - 1
            with contextlib.nullcontext() if ends else self._unsynchronised(model):
                self._weight = weight
                loss = loss + super().training_step(model, row, num_items_in_batch)
        self._weight = 1.0
        if inputs.last:
            self._close_figures()
        return loss

    @contextlib.contextmanager
    def _unsynchronised(self, model: Any) -> Iterator[None]:
        """Keep the gradients of a backward pass in this process, as those of a micro-batch before the last."""
        accelerator = self.accelerator  # type: ignore[attr-defined]
        synchronises = accelerator.sync_gradients
        accelerator.gradient_state._set_sync_gradients(False)
        deepspeed = accelerator.distributed_type == DistributedType.DEEPSPEED
        try:
            with contextlib.nullcontext() if deepspeed else accelerator.no_sync(model):
                yield
        finally:
            accelerator.gradient_state._set_sync_gradients(synchronises)

    def _count(self, inputs: dict[str, Any]) -> None:
        if PARTS in inputs:  # the tokens that are computed, and not those of the padded layout
            row = {"input_ids": inputs[IDS], "attention_mask": inputs[PARTS] != NOTHING}
            inputs = row | {"completion_mask": inputs["completion_mask"]}
        super()._count(inputs)

    def floating_point_ops(self, inputs: Any) -> int:
        """Return nothing: throughput is counted in `posttrain.train.throughput`."""
        return 0

    def _compute_loss(self, model: Any, inputs: Any, return_outputs: bool) -> Any:
        if PARTS not in inputs or not self.model.training:  # type: ignore[attr-defined]
            return super()._compute_loss(model, inputs, return_outputs)  # type: ignore[misc]
        figures, tokens = self._metrics["train"], self._total_train_tokens
        found: dict[str, list[float]] = defaultdict(list)
        self._metrics["train"] = found
        try:
            with _of_this_process(self.accelerator):  # type: ignore[attr-defined]
                loss = super()._compute_loss(model, inputs, return_outputs)  # type: ignore[misc]
        finally:
            self._metrics["train"] = figures
        added, self._total_train_tokens = self._total_train_tokens - tokens, tokens
        self._open_figures[_TOTAL_TOKENS] += torch.tensor([float(added), 1.0], dtype=torch.float64)
        chosen, rejected = inputs["completion_mask"][:, 1:].sum(1).chunk(2)
        weights = {
            "entropy": chosen.sum() + rejected.sum(),
            "logits/chosen": chosen.sum(),
            "mean_token_accuracy": chosen.sum(),
            "logits/rejected": rejected.sum(),
        }
        for name, values in found.items():
            if name != _TOTAL_TOKENS:
                weight = float(weights.get(name, len(chosen)))
                self._open_figures[name] += torch.tensor([values[-1] * weight, weight], dtype=torch.float64)
        return loss

    @property
    def _open_figures(self) -> dict[str, torch.Tensor]:
        """For each figure of the step so far, its weighted sum and the sum of the weights."""
        if not hasattr(self, "_figures"):
            self._figures: dict[str, torch.Tensor] = defaultdict(lambda: torch.zeros(2, dtype=torch.float64))
        return self._figures

    def _close_figures(self) -> None:
        """Give TRL the figures of a step: means over its pairs or tokens in all processes."""
        names = sorted(self._open_figures)
        accelerator = self.accelerator  # type: ignore[attr-defined]
        sums = torch.stack([self._open_figures[name] for name in names]).to(accelerator.device)
        for name, (total, weight) in zip(names, accelerator.reduce(sums, reduction="sum").tolist(), strict=True):
            if name == _TOTAL_TOKENS:
                self._total_train_tokens += int(total)
                self._metrics["train"][name] = [self._total_train_tokens]
            else:
                self._metrics["train"][name].append(total / weight if weight else 0.0)
        self._open_figures.clear()


@contextlib.contextmanager
def _of_this_process(accelerator: Any) -> Iterator[None]:
    """Keep TRL from gathering figures: other processes' rows have other numbers of pairs."""
    accelerator.gather = accelerator.gather_for_metrics = lambda values, *args, **kwargs: values
    try:
        yield
    finally:
        del accelerator.gather, accelerator.gather_for_metrics
