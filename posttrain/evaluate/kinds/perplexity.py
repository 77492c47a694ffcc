"""How well a model predicts held-out text: perplexity a token, and bits a byte."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from posttrain.evaluate.answers import Answer, sha256
from posttrain.evaluate.kinds.base import About, How, Sample, Source
from posttrain.evaluate.metrics import Measured, Metric, ratio, transformed
from posttrain.evaluate.rows import read_rows
from posttrain.recipe.schema_evaluate import Perplexity

if TYPE_CHECKING:
    import torch

    from posttrain.evaluate.checkpoints import Loaded

PERPLEXITY = Metric("perplexity", "perplexity", higher_is_better=False, primary=True)
BITS = Metric("bits_per_byte", "bits/byte", higher_is_better=False)
VERSION = "1"


@dataclass(frozen=True)
class PerplexityTask:
    """Texts predicted token by token, each by itself: exp of the mean negative log-likelihood over all tokens."""

    name: str
    entry: Perplexity
    seen: list[dict[str, Any]] = field(default_factory=list, compare=False)

    @property
    def about(self) -> About:
        """What it is."""
        return About(
            kind="perplexity",
            title="Perplexity" if self.name.startswith("perplexity") else f"Perplexity ({self.name})",
            language=self.entry.language,
            version=VERSION,
            num_fewshot=0,
            metrics=(PERPLEXITY, BITS),
            options={"max_length": self.entry.max_length},
        )

    @cached_property
    def samples(self) -> Sequence[Sample]:
        """The texts."""
        entry = self.entry
        assert entry.path is not None, "a rule of the recipe asks for it"
        source = Source(entry.path, entry.revision, entry.config, entry.split or "train")
        rows = read_rows(self.name, source, columns=(entry.column,), most=entry.max_samples, seen=self.seen)
        return [Sample(str(row.get("id", number)), str(row[entry.column])) for number, row in enumerate(rows, start=1)]

    def answer(self, loaded: Loaded, how: How) -> list[Answer]:
        """Return the negative log-likelihood of every text, in nats."""
        texts = [sample.prompt for sample in self.samples]
        sums = nll(loaded, texts, self.entry.max_length, how)
        return [
            Answer(
                id=sample.id,
                prompt_sha256=sha256(sample.prompt),
                response=total,
                item={"tokens": tokens, "bytes": len(sample.prompt.encode("utf-8", "surrogatepass"))},
                scores={"nll": total},
            )
            for sample, (total, tokens) in zip(self.samples, sums, strict=True)
        ]


def windows(ids: Sequence[int], prefix: int | None, length: int) -> list[tuple[list[int], list[int]]]:
    """Cut a text into windows; return for each what is read and what is predicted from it, of equal lengths.

    Every token is predicted once. The first window predicts the text's first token from `prefix`, a BOS or the like;
    each later one from the last token of the window before it. Without a prefix the first token is not predicted.
    """
    stream = [*([] if prefix is None else [prefix]), *ids]
    return [
        (stream[start : start + length], stream[start + 1 : start + length + 1])
        for start in range(0, len(stream) - 1, length)
    ]


def nll(loaded: Loaded, texts: Sequence[str], length: int, how: How) -> list[tuple[float, int]]:
    """Return the negative log-likelihood of each text in nats, and how many tokens it was summed over."""
    tokenizer = loaded.encoding.tokenizer
    limit = length if loaded.context is None else min(length, loaded.context)
    cut = [
        windows(tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.bos_token_id, limit) for text in texts
    ]
    flat = [(number, window) for number, found in enumerate(cut) for window in found]
    flat.sort(key=lambda pair: (-len(pair[1][0]), pair[0]))
    totals = [0.0] * len(texts)
    left = [len(found) for found in cut]
    how.advance(left.count(0))
    for start in range(0, len(flat), how.batch_size):
        batch = flat[start : start + how.batch_size]
        for (number, _), total in zip(batch, _batch_nll(loaded, [window for _, window in batch]), strict=True):
            totals[number] += total
            left[number] -= 1
            how.advance(int(left[number] == 0))
    return [(total, sum(len(targets) for _, targets in found)) for total, found in zip(totals, cut, strict=True)]


def _batch_nll(loaded: Loaded, batch: Sequence[tuple[list[int], list[int]]]) -> list[float]:
    import torch

    device = loaded.model.get_input_embeddings().weight.device
    width = max(len(read) for read, _ in batch)
    pad = next(iter(loaded.stop_ids), 0)
    ids = torch.tensor([read + [pad] * (width - len(read)) for read, _ in batch], device=device)
    mask = torch.tensor([[1] * len(read) + [0] * (width - len(read)) for read, _ in batch], device=device)
    wanted = torch.tensor([targets + [-100] * (width - len(targets)) for _, targets in batch], device=device)
    with torch.inference_mode():
        logits = loaded.model(input_ids=ids, attention_mask=mask, use_cache=False).logits
        return [_row_nll(row, targets) for row, targets in zip(logits, wanted, strict=True)]


def _row_nll(logits: torch.Tensor, targets: torch.Tensor) -> float:
    """Sum the loss of one row, in float32 whatever the model computes in."""
    import torch

    lost = torch.nn.functional.cross_entropy(
        logits.float(), targets.to(logits.device), ignore_index=-100, reduction="sum"
    )
    return float(lost)


class PerplexityScorer:
    """Scores the likelihoods that were kept."""

    def score(self, answer: Answer, options: dict[str, Any]) -> dict[str, Any]:
        """Return the negative log-likelihood, in nats."""
        return {"nll": json.loads(json.dumps(answer.response))}

    def measure(self, answers: Sequence[Answer], options: dict[str, Any]) -> list[Measured]:
        """Return the perplexity of all tokens, and the bits of all bytes."""
        statistics = np.array(
            [[answer.scores["nll"], answer.item["tokens"], answer.item["bytes"]] for answer in answers],
            dtype=np.float64,
        )
        return [
            Measured(PERPLEXITY, statistics, transformed(ratio(0, 1), np.exp)),
            Measured(BITS, statistics, ratio(0, 2, 1 / math.log(2))),
        ]
