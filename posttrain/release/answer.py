"""Whether a released folder answers, and stops by itself: its card's own code, in a process that has nothing else."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from posttrain.errors import UserError

TIMEOUT = 3600.0  # seconds; a large model is read from a disk
_MARK = "ANSWER "
# Follows the code of the card, with the names that it uses, and adds nothing to how the answer came about.
_REPORT = f"""
import json
new_ids = output[0, inputs["input_ids"].shape[1] :].tolist()
stop_ids = model.generation_config.eos_token_id
stop_ids = stop_ids if isinstance(stop_ids, list) else [stop_ids]
text = tokenizer.decode(new_ids, skip_special_tokens=True)
print("\\n{_MARK}" + json.dumps([text, len(new_ids), bool(new_ids) and new_ids[-1] in stop_ids]))
"""


@dataclass(frozen=True)
class Answer:
    """What a model wrote, greedily; `stopped` says that it ended its turn by itself and was not cut off."""

    text: str
    tokens: int
    stopped: bool


def ask(card: str, folder: Path, timeout: float = TIMEOUT) -> Answer:
    """Run the usage code of a card as it stands there, in a fresh process with plain transformers and no network.

    Args:
        card: The card.
        folder: The release folder, which stands in for the repository that the code names.
        timeout: Seconds until it counts as broken.

    Raises:
        UserError: The model cannot be loaded by that code or generates nothing; the message has the last line that the
            process said.
    """
    from posttrain.release.card import run_usage
    from posttrain.release.card.usage import usage_of

    code = usage_of(card)
    if code is None:
        raise UserError(f"{folder.name}: its card has no usage code; write the card anew")
    printed = run_usage(card.replace(code, code + _REPORT, 1), folder, timeout=timeout)
    _, mark, figures = printed.rpartition(f"\n{_MARK}")
    if not mark:
        raise UserError(f"{folder.name}: the usage code of its card ended before it had an answer")
    text, tokens, stopped = json.loads(figures.partition("\n")[0])  # GPTQModel prints around it what it does
    return Answer(text=text, tokens=tokens, stopped=stopped)
