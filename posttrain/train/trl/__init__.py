"""All that the project knows of TRL's and transformers' trainers; an upgrade of either touches this folder.

The trainers get rows that are already token ids, so TRL's own preparation is skipped. What is overridden here:
evaluation (weighted by token or by pair, the same for any batch size and number of processes), throughput,
the check that DPO starts at ln 2, reference log-probabilities that are columns of the rows, and the side effects of TRL
that a build must not have (telemetry, model cards).
"""

from __future__ import annotations

from posttrain.train.trl.preference import PreferenceTrainer, preference_trainer
from posttrain.train.trl.reference import ReferenceScorer, pair_log_probabilities
from posttrain.train.trl.supervised import SupervisedTrainer, supervised_trainer

__all__ = [
    "PreferenceTrainer",
    "ReferenceScorer",
    "SupervisedTrainer",
    "pair_log_probabilities",
    "preference_trainer",
    "supervised_trainer",
]
