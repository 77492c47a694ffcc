"""Where generation ends: what the configuration of a checkpoint says, against what its chat template writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from posttrain.errors import UserError
from posttrain.release.limits import read_json
from posttrain.release.model_files import CONFIG, GENERATION_CONFIG


def stop_problems(folder: Path, trust_remote_code: bool) -> list[str]:
    """Say whether a checkpoint would generate on after its turn: the end of it is no stop in `generation_config.json`.

    A checkpoint without a chat template has no turns; of it only some end of text is asked.

    Args:
        folder: The checkpoint's folder.
        trust_remote_code: What the recipe says of the model's own code.
    """
    from transformers import AutoTokenizer

    from posttrain.chat import Template, end_of_turn_id

    if not (folder / GENERATION_CONFIG).is_file():
        return [f"there is no {GENERATION_CONFIG}, so nothing says where generation stops"]
    stops = _ids(read_json(folder / GENERATION_CONFIG, GENERATION_CONFIG).get("eos_token_id"))
    rows = _rows(read_json(folder / CONFIG, CONFIG))
    if not stops:
        return [f"{GENERATION_CONFIG}: has no eos_token_id, so generation would never stop by itself"]
    found = [
        f"{GENERATION_CONFIG}: eos_token_id {stop} is beyond the {rows} tokens of the model"
        for stop in stops
        if rows is not None and not 0 <= stop < rows
    ]
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
    except (OSError, ValueError) as error:
        return [*found, f"the tokenizer cannot be loaded: {str(error).splitlines()[0]}"]
    text = tokenizer.chat_template
    if not isinstance(text, str):
        return found
    try:
        end = end_of_turn_id(tokenizer, Template(name="chat_template.jinja", text=text, has_markers=False))
    except UserError as error:
        return found + error.problems
    if end not in stops:
        token = tokenizer.convert_ids_to_tokens(end)
        found.append(
            f"{GENERATION_CONFIG}: generation stops at {', '.join(map(str, stops))}, and the chat template ends a turn "
            f"with {token} ({end}); add it to eos_token_id"
        )
    return found


def _ids(value: Any) -> list[int]:
    values = value if isinstance(value, list) else [value]
    return [stop for stop in values if isinstance(stop, int)]


def _rows(config: dict[str, Any]) -> int | None:
    text = config.get("text_config")
    rows = (text if isinstance(text, dict) else config).get("vocab_size")
    return rows if isinstance(rows, int) else None
