"""Drawing tokens and ending answers row by row, so that a batch is no more than several answers side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from transformers import LogitsProcessor, StoppingCriteria

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Tokens that a window of the last ones is longer than the longest stop string has bytes: a decoder may treat the
# beginning of what it is given in its own way.
_MARGIN = 4


@dataclass(frozen=True)
class Draw:
    """How one row's tokens are drawn: greedily where `temperature` is 0."""

    temperature: float
    top_p: float
    seed: int


class RowSampler(LogitsProcessor):
    """Draws each row's next token with that row's own generator, and leaves only it to be picked greedily.

    At each step every token gets a number from an exponential distribution, drawn on the processor, and the largest
    ratio of probability to number wins (the Gumbel-max trick). So a row's draws depend on its seed and its logits
    alone; not on the other rows, nor on how many there are, nor on the device. And where another batch rounds the
    logits otherwise, another token wins only if two are that close: looking one random number up in the cumulative
    distribution would shift the bounds of all tokens at once, and change far more draws.

    Top-p keeps the smallest set of most likely tokens whose probabilities reach `top_p` (nucleus sampling, arXiv
    1904.09751), after the temperature.

    Attributes:
        broken: Of shape (rows,), bool: the rows whose logits were not numbers at some step.
    """

    def __init__(self, draws: Sequence[Draw], device: torch.device) -> None:
        self._rows = [row for row, draw in enumerate(draws) if draw.temperature > 0]
        drawn = [draws[row] for row in self._rows]
        self._generators = [torch.Generator().manual_seed(draw.seed) for draw in drawn]
        self._temperatures = torch.tensor([draw.temperature for draw in drawn], device=device)[:, None]
        self._top_p = torch.tensor([draw.top_p for draw in drawn], device=device)[:, None]
        self._cuts = any(draw.top_p < 1 for draw in drawn)
        self.broken = torch.zeros(len(draws), dtype=torch.bool, device=device)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return scores of shape (rows, vocabulary), -inf but for the drawn token, unchanged where a row is greedy."""
        self.broken |= scores.isnan().any(dim=1)
        if not self._rows:
            return scores
        chosen = self._choose(scores[self._rows].float().nan_to_num(nan=0.0))
        drawn = torch.full_like(scores[self._rows], -torch.inf).scatter_(1, chosen, 0.0)
        scores = scores.clone()
        scores[self._rows] = drawn
        return scores

    def _choose(self, logits: torch.Tensor) -> torch.Tensor:
        probabilities = (logits / self._temperatures).softmax(dim=1)
        if self._cuts:
            ordered, order = probabilities.sort(dim=1, descending=True, stable=True)
            before = ordered.cumsum(dim=1) - ordered
            outside = (before >= self._top_p) & (self._top_p < 1)
            outside[:, 0] = False
            probabilities = probabilities.masked_fill(outside.gather(1, order.argsort(dim=1)), 0.0)
        # In float64, whose uniform numbers are fine enough for tokens of small probability; torch's own exponential
        # numbers depend on the libraries it was built with.
        uniform = [torch.rand(logits.shape[1], generator=each, dtype=torch.float64) for each in self._generators]
        exponential = torch.stack(uniform).log_().neg_().float().to(logits.device)
        chosen: torch.Tensor = (probabilities / exponential).argmax(dim=1, keepdim=True)
        return chosen


@dataclass(frozen=True)
class Limit:
    """Where one row ends: after `most` tokens, or at one of the stop strings."""

    most: int
    stop: tuple[str, ...] = ()


class RowEndings(StoppingCriteria):
    """Ends each row at its own limit: a stop token, a stop string, or so many tokens.

    Args:
        limits: One for each row.
        stop_ids: Tokens at which any row ends.
        tokenizer: Decodes, to find stop strings.
        cancelled: Asked at each step whether to give up all rows.

    Attributes:
        written: The tokens of each row, with the one that ended it.
        stopped: Whether a row ended by a stop token or string.
    """

    def __init__(
        self,
        limits: Sequence[Limit],
        stop_ids: Sequence[int],
        tokenizer: PreTrainedTokenizerBase,
        cancelled: Callable[[], bool],
    ) -> None:
        self._limits = limits
        self._stop_ids = frozenset(stop_ids)
        self._windows = [max((len(stop.encode()) for stop in limit.stop), default=0) + _MARGIN for limit in limits]
        self._tokenizer = tokenizer
        self._cancelled = cancelled
        self._ended = [False] * len(limits)
        self.written: list[list[int]] = [[] for _ in limits]
        self.stopped = [False] * len(limits)

    def __call__(self, input_ids: torch.Tensor, scores: object, **_: object) -> torch.Tensor:
        """Take each row's newest token; say of each row, in a tensor of shape (rows,), whether it has ended."""
        for row, token in enumerate(input_ids[:, -1].tolist()):
            if not self._ended[row]:
                self.written[row].append(token)
                self.stopped[row] = token in self._stop_ids or self._is_at_stop(row)
                self._ended[row] = self.stopped[row] or len(self.written[row]) >= self._limits[row].most
        cancelled = self._cancelled()
        return torch.tensor([ended or cancelled for ended in self._ended], device=input_ids.device)

    def _is_at_stop(self, row: int) -> bool:
        stops = self._limits[row].stop
        if not stops:
            return False
        latest = self.written[row][-self._windows[row] :]
        text: str = self._tokenizer.decode(latest, clean_up_tokenization_spaces=False)
        return any(stop in text for stop in stops)
