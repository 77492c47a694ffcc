"""Checks of a model card against the files beside it, without a network.

`ModelCard.validate()` of huggingface_hub asks the hub, and knows nothing of what the numbers come from.
"""

from __future__ import annotations

from posttrain.release.card.lint.check import lint_card

__all__ = ["lint_card"]
