"""What every variant of a checkpoint shares: its tokenizer and template, the text, and where it is computed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posttrain.chat.template import OWN, Template
from posttrain.errors import UserError
from posttrain.recipe.schema import Model
from posttrain.recipe.schema_quantize import HeldOut, Quantize, TextSet
from posttrain.release.quantize.blocks import Blocks, cut
from posttrain.release.quantize.source import CONFIG, GENERATION_CONFIG, longest, read_json
from posttrain.release.quantize.text import draw, read_documents, set_name

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

QUESTION = "What is the capital of Finland?"


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is to be built.

    Attributes:
        settings: The section of the recipe.
        model: The recipe's model section.
        of: Which checkpoint it is: `base`, `sft` or `instruct`.
        made: Whether a stage made it, which gave it its template and stop tokens; otherwise it is `model.base`.
        source: The checkpoint's folder.
        tokenizer: The folder of its tokenizer: the same, unless `model.tokenizer` names another.
        rows: The folder with the recipe's SFT rows, `train.parquet` and `validation.parquet`, or None.
        seed: The recipe's seed.
        folder: Where the variants go.
        work: A folder that survives an interruption.
        say: Called with each line for the user.
    """

    settings: Quantize
    model: Model
    of: str
    made: bool
    source: Path
    tokenizer: Path
    rows: Path | None
    seed: int
    folder: Path
    work: Path
    say: Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """The text as token ids, and the settings of all jobs.

    Attributes:
        calibration: What is calibrated on.
        heldout: What perplexity is measured on.
        prompt: Token ids that each variant has to go on from.
        template: A chat template to save beside the tokenizer, where that has another.
        stops: Token ids at which generation ends; none where those of the checkpoint stay.
        device: `cpu` or `cuda`.
        dtype: What calibration and perplexity are computed in.
    """

    calibration: Blocks
    heldout: Blocks
    prompt: list[int]
    template: Template | None
    stops: list[int]
    device: str
    dtype: str


def prepare(task: Task) -> Prepared:
    """Read and tokenise the text, and settle where it is computed.

    Raises:
        UserError: A set holds too little text, or a row is longer than the model's positions.
    """
    from posttrain.train.tokenizer import load_tokenizer

    settings, config = task.settings, read_json(task.source / CONFIG)
    most = longest(config)
    too_long = [
        f"quantize.{key}.length: {part.length} tokens, and the model knows {most} positions; set it to {most} or less"
        for key, part in (("calibration", settings.calibration), ("heldout", settings.heldout))
        if most is not None and part.length > most
    ]
    if too_long:
        raise UserError(too_long)
    tokenizer = load_tokenizer(task.tokenizer, replace(task.model, base=str(task.source), revision=None))
    template, stops = _template(task, tokenizer)
    calibration = _blocks(task, settings.calibration, "calibration", tokenizer, template, without=frozenset())
    heldout = _blocks(task, _held_out(settings, task), "heldout", tokenizer, template, without=calibration.marks)
    if not calibration.marks.isdisjoint(heldout.marks):
        raise RuntimeError("the held-out rows are not apart from the calibration's")
    device = _device(settings)
    for key, part, asked in (
        ("calibration", calibration, settings.calibration.samples),
        ("held-out text", heldout, settings.heldout.samples),
    ):
        tokens = sum(map(len, part.rows))
        less = f", fewer than the {asked} asked for" if len(part.rows) < asked else ""
        refused = f"; the chat template refused {part.refused}" if part.refused else ""
        task.say(f"{key} {part.name}: {len(part.rows)} rows, {tokens:,} tokens{less}{refused}")
    own = template is not None and task.model.chat_template != OWN and not task.made
    return Prepared(
        calibration=calibration,
        heldout=heldout,
        prompt=_prompt(tokenizer, template, settings.system),
        template=template if own else None,
        stops=stops,
        device=device,
        dtype=_dtype(settings, config, device),
    )


def _template(task: Task, tokenizer: PreTrainedTokenizerBase) -> tuple[Template | None, list[int]]:
    """Return the template of the checkpoint, if it has one, and the stop tokens that its settings lack."""
    from posttrain.chat import resolve
    from posttrain.train.tokenizer import stop_ids

    own = OWN if task.made else task.model.chat_template
    if own == OWN and not tokenizer.chat_template:
        return None, []
    template = resolve(own, tokenizer)
    known = read_json(task.source / GENERATION_CONFIG).get("eos_token_id")
    stops = stop_ids(tokenizer, template, known)
    present = known if isinstance(known, list) else [known]
    return template, [] if set(stops) <= set(present) else stops


def _held_out(settings: Quantize, task: Task) -> HeldOut:
    held, calibration = settings.heldout, settings.calibration
    if held.path is not None or task.rows is not None:
        return held
    keys = ("path", "name", "revision", "config", "split", "column")
    return replace(held, **{key: getattr(calibration, key) for key in keys})


def _blocks(
    task: Task,
    part: TextSet,
    key: str,
    tokenizer: PreTrainedTokenizerBase,
    template: Template | None,
    without: frozenset[str],
) -> Blocks:
    where = f"quantize.{key}.path"
    name = set_name(part, "the recipe's held-out SFT rows" if key == "heldout" else "the recipe's SFT rows")
    if part.path is None:
        assert task.rows is not None, "a precondition of the stage forbids it"
        part = replace(part, path=str(task.rows / ("validation.parquet" if key == "heldout" else "train.parquet")))
    documents = draw(read_documents(part, where), part.samples * part.length, task.seed, without)
    if not documents:
        apart = " that is not in the calibration" if without else ""
        raise UserError(f"{where}: {name} holds no text{apart}; name another set, or lower the calibration's samples")
    try:
        return cut(
            documents,
            tokenizer,
            template,
            name=name,
            samples=part.samples,
            length=part.length,
            system=task.settings.system,
        )
    except UserError as error:
        raise UserError(f"{where}: {error}") from error


def _prompt(tokenizer: PreTrainedTokenizerBase, template: Template | None, system: str | None) -> list[int]:
    from posttrain.chat import render
    from posttrain.train.text import Ends, own_backend

    if template is None:
        backend = own_backend(tokenizer)
        return [*Ends.of(tokenizer).head, *backend.encode(QUESTION, add_special_tokens=False).ids]
    turns = [{"role": "system", "content": system}] if system is not None else []
    turns.append({"role": "user", "content": QUESTION})
    text = render(template.text, turns, tokenizer.special_tokens_map, add_generation_prompt=True).text
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def _device(settings: Quantize) -> str:
    import torch

    there = torch.cuda.is_available()
    if settings.device == "cuda" and not there:
        raise UserError("quantize.device: cuda, and torch finds no GPU here; give cpu or auto")
    return "cuda" if there and settings.device != "cpu" else "cpu"


def _dtype(settings: Quantize, config: dict[str, Any], device: str) -> str:
    if settings.compute_dtype != "auto":
        return settings.compute_dtype
    if device == "cpu":
        return "float32"
    return str(config.get("dtype") or config.get("torch_dtype") or "bfloat16")
