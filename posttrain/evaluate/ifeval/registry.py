"""The 25 kinds of instruction, by their ids."""

from __future__ import annotations

from collections.abc import Mapping

from posttrain.evaluate.ifeval import case, combination, content, keywords, layout, length, startend, wording
from posttrain.evaluate.ifeval.base import Verifier

VERIFIERS: Mapping[str, Verifier] = {
    instruction: verifier
    for module in (keywords, wording, length, content, layout, combination, startend, case)
    for instruction, verifier in module.VERIFIERS.items()
}
