"""Log-probabilities of given tokens, from a model's logits."""

from __future__ import annotations

import torch

from posttrain.train.dataset import IGNORED

_POSITIONS = 256  # scored at a time: a float32 copy of 4,096 x 128,256 logits alone would be 2.1 GB


def score_tokens(logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the log-probability of each label, and whether it was the most likely token.

    Args:
        logits: Of shape (rows, length, vocabulary), any floating dtype.
        labels: Of shape (rows, length), not shifted; `IGNORED` where there is none.

    Returns:
        Two tensors of shape (rows, length - 1), float32 and bool, zero at ignored positions.
    """
    logits, labels = logits[:, :-1], labels[:, 1:]
    counted = labels != IGNORED
    targets = labels.masked_fill(~counted, 0)
    log_probs, hits = [], []
    for start in range(0, labels.shape[1], _POSITIONS):
        part = logits[:, start : start + _POSITIONS].float()
        target = targets[:, start : start + _POSITIONS]
        log_probs.append(part.gather(-1, target[..., None]).squeeze(-1) - part.logsumexp(-1))
        hits.append(part.argmax(-1) == target)
    return torch.cat(log_probs, 1).masked_fill(~counted, 0.0), torch.cat(hits, 1) & counted
