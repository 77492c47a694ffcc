"""A recipe made small, so that its whole chain runs on a laptop before it gets a cluster.

Everything is as the recipe writes it except what costs time or a download: the model is a tiny one of the same
architecture with the recipe's chat template, sources are the sample rows in `data/`, sentences of the package stand in
for what teachers write, and training takes a few steps. What was changed beyond that is in `Smoke.notes`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from posttrain.assets import is_hub_file, is_hub_id
from posttrain.chat.template import builtin_templates
from posttrain.recipe.load import LoadedRecipe
from posttrain.recipe.schema import Cpt, Data, Dpo, Launch, Model, Recipe, Release, Sft, TextSource
from posttrain.recipe.schema_data import Decontamination, EvalSet
from posttrain.recipe.schema_generate import MagpieRollout, Rate, Respond, RewardModel, Rollout, Teacher, Translate
from posttrain.recipe.schema_quantize import Quantize, TextSet
from posttrain.recipe.smoke_evaluate import few_samples

FLAG = "--smoke"
FOLDER = "smoke-model"  # in the output folder: the tiny model and its tokenizer
STEPS = 2
ROWS = 24  # of a source
LENGTH = 256  # tokens
BATCH = 4  # rows a step: for 1, 2 or 4 processes of one row each
TEXTS = {"en": "builtin:text/en.txt", "fi": "builtin:text/fi.txt"}
SAMPLES = {
    "avoin_avustaja": "builtin:samples/avoin-avustaja.jsonl",
    "europarl": "builtin:samples/europarl.jsonl",
    "helpsteer3": "builtin:samples/helpsteer3.jsonl",
    "magpie": "builtin:samples/magpie.jsonl",
    "oasst": "builtin:samples/oasst-messages.jsonl",
    "tulu3": "builtin:samples/tulu3.jsonl",
    "ultrafeedback": "builtin:samples/ultrafeedback.jsonl",
}
SHAPES = {
    "messages": "builtin:samples/messages.jsonl",
    "conversations": "builtin:samples/sharegpt.jsonl",
    "prompt+completion": "builtin:samples/prompt-completion.jsonl",
    "instruction+output": "builtin:samples/instructions.jsonl",
    "chosen+rejected": "builtin:samples/preferences.jsonl",
}


SAME_SHAPE = {"instruction+response": "instruction+output"}  # of which there are no samples


@dataclass(frozen=True)
class Smoke:
    """A recipe made small, and what had to be changed in it beyond sizes and sources."""

    loaded: LoadedRecipe
    notes: tuple[str, ...]
    base: str | None  # what the recipe's own base is: a folder tells its architecture


def smoke(loaded: LoadedRecipe) -> Smoke:
    """Return a recipe made small. Its output goes to the recipe's own `output_dir` with `-smoke` behind it."""
    recipe = loaded.recipe
    notes: list[str] = []
    output = recipe.output_dir.rstrip("/") + "-smoke"
    folder = str(Path(output) / FOLDER)
    model = _model(recipe.model, folder)
    teacher = Teacher(engine="sample", model=folder, batch_size=8)
    small = replace(
        recipe,
        output_dir=output,
        model=model,
        cpt=_cpt(recipe.cpt),
        teacher=teacher if recipe.teacher is not None else None,
        judge=replace(teacher) if recipe.judge is not None else None,
        reward=_reward(recipe.reward, folder),
        cluster=None,
        generate=[_rollout(entry) for entry in recipe.generate],
        data=_data(recipe.data, notes),
        sft=_training(recipe.sft, notes, "sft"),
        dpo=_training(recipe.dpo, notes, "dpo"),
        quantize=_quantize(recipe.quantize, bool(recipe.data.sft), notes),
        eval=few_samples(recipe.eval, folder if model.new is None else None, notes) if recipe.eval else None,
        release=_release(recipe, notes),
        launch=Launch(cpu=True),
        report_to=[],
    )
    if recipe.cluster is not None:
        notes.append("cluster: left out; the rows are written in this process")
    return Smoke(replace(loaded, recipe=small, flags=(FLAG,)), tuple(notes), recipe.model.base)


def _model(model: Model, folder: str) -> Model:
    if model.new is not None:
        tiny = replace(
            model.new,
            vocab_size=512,
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=2 * LENGTH,
        )
        return replace(model, new=tiny)
    known = model.chat_template in builtin_templates()
    return replace(
        model,
        base=folder,
        revision=None,
        tokenizer=None,
        chat_template=model.chat_template if known else "tokenizer",
        trust_remote_code=False,
    )


def _cpt(section: Cpt | None) -> Cpt | None:
    if section is None:
        return None
    texts = [_text(source, number) for number, source in enumerate(section.text)]
    few = replace(section, text=texts, tokens=None, max_length=min(section.max_length, 128), validation_fraction=0.02)
    small: Cpt = _steps(few)
    return small


def _text(source: TextSource, number: int) -> TextSource:
    language = source.language if source.language in TEXTS else list(TEXTS)[number % len(TEXTS)]
    return replace(source, path=TEXTS[language], revision=None, config=None, split="train", column="text")


def _training(section: Any, notes: list[str], name: str) -> Any:
    if section is None:
        return None
    assert isinstance(section, (Sft, Dpo))
    if section.optim != "adamw_torch":
        notes.append(f"{name}.optim: adamw_torch in place of {section.optim}, which wants a GPU")
    return _steps(replace(section, optim="adamw_torch", max_length=min(section.max_length, LENGTH)))


def _steps(section: Any) -> Any:
    return replace(
        section,
        max_steps=STEPS,
        global_batch_size=BATCH,
        per_device_train_batch_size=1,
        per_device_eval_batch_size=1,
        logging_steps=1,
        eval_steps=0,
        save_steps=1,
    )


def _quantize(section: Quantize | None, own_rows: bool, notes: list[str]) -> Quantize | None:
    """Return the default variant alone, with groups that divide the tiny model's columns, on a few short rows."""
    if section is None:
        return None
    names = [variant.name for variant in section.variants]
    chosen = section.variants[names.index(section.default) if section.default in names else 0]
    if len(names) > 1:
        notes.append(f"quantize: one variant of {len(names)}, the default")

    def few(part: TextSet, rows: int, sample: str) -> Any:
        path = None if part.path is None and own_rows else sample
        changes: dict[str, Any] = {"name": None, "revision": None, "config": None, "split": "train", "column": None}
        return replace(part, path=path, samples=rows, length=min(part.length, LENGTH // 4), **changes)

    return replace(
        section,
        variants=[replace(chosen, group_size=min(chosen.group_size, 64))],
        calibration=few(section.calibration, 2 * BATCH, SHAPES["messages"]),
        heldout=few(section.heldout, BATCH, SHAPES["prompt+completion"]),
        default=None,
        device="cpu",
        compute_dtype="float32",
    )


def _release(recipe: Recipe, notes: list[str]) -> Release | None:
    """Return a release of the same names and licence, unsigned, that asks for few tokens."""
    section = recipe.release
    if section is None:
        return None
    if section.signing is not None:
        notes.append("release: not signed")
    checkpoints = section.checkpoints
    if checkpoints is not None and recipe.quantize is not None:  # a smaller model's variants have other names
        checkpoints = [name for name in checkpoints if not name.startswith("gptq-")] or None
    if fetched := [written for written in section.license_files if is_hub_file(written)]:
        notes.append(f"release.license: Apache-2.0 in place of {section.license}, whose text is on the hub")
        section = replace(
            section,
            license="Apache-2.0",
            license_reason=section.license_reason or "a smoke run publishes nothing",
            license_files=[written for written in section.license_files if written not in fetched],
        )
    base = section.base_model or recipe.model.base
    named = base if base is not None and is_hub_id(base, bare=True) else "smoke/model"
    return replace(
        section,
        checkpoints=checkpoints,
        base_model=None if recipe.model.new is not None else named,
        max_new_tokens=min(section.max_new_tokens, 8),
        signing=None,
    )


def _reward(section: RewardModel | None, folder: str) -> RewardModel | None:
    if section is None:
        return None
    return RewardModel(model=f"{folder}-reward", dtype="float32", max_length=2 * LENGTH)


def _source(entry: Any) -> Any:
    """Return an entry that reads sample rows with the options of its source."""
    if entry.source == "generated":
        return replace(entry, max_rows=None, fraction=None, repeat=None)
    changes: dict[str, Any] = {"revision": None, "config": None, "split": "train"}
    if entry.source in SAMPLES:
        return replace(entry, path=SAMPLES[entry.source], **changes)
    shape = SAME_SHAPE.get(entry.shape, entry.shape)
    return replace(entry, path=SHAPES[shape], shape=shape, **changes)


def _data(data: Data, notes: list[str]) -> Data:
    sft = [_few(_shaped(entry, "messages")) for entry in data.sft]
    preference = [_few(_shaped(entry, "chosen+rejected")) for entry in data.preference]
    against = None
    if data.decontaminate is not None:
        sets = [
            EvalSet(path="builtin:eval-prompts.jsonl", name=each.label, language=each.language)
            for each in data.decontaminate.against
        ]
        against = replace(data.decontaminate, against=sets) if sets else Decontamination()
    duplicates = data.duplicates
    if duplicates.semantic is not None:
        notes.append("data.duplicates.semantic: left out, because its model would have to be fetched")
        duplicates = replace(duplicates, semantic=None)
    return replace(
        data,
        sft=sft,
        preference=preference,
        decontaminate=against,
        duplicates=duplicates,
        validation=replace(data.validation, fraction=max(data.validation.fraction, 0.1), max_rows=8),
        num_proc=1,
    )


def _shaped(entry: Any, shape: str) -> Any:
    """Let an entry whose shape its file decides have that of the sample."""
    return replace(entry, shape=shape) if getattr(entry, "shape", None) == "auto" else entry


def _few(entry: Any) -> Any:
    small = _source(entry)
    if small.source == "generated" or small.fraction is not None:
        return small
    return replace(small, max_rows=min(small.max_rows or ROWS, ROWS), repeat=None)


def _rollout(entry: Rollout) -> Rollout:
    """Return an entry of few rows. What the stand-in says is no measure of what a teacher will, so no gate is shut."""
    source = None
    if entry.source is not None:
        source = replace(_source(_shaped(entry.source, "messages")), max_rows=None, fraction=None, repeat=None)
    small = replace(entry, source=source, max_rows=ROWS)
    if isinstance(small, MagpieRollout):
        return replace(small, rows=min(small.rows, ROWS))
    if isinstance(small, Respond):
        return replace(small, n=min(small.n, 2))
    if isinstance(small, Rate):
        return replace(small, min_quality=None, min_fluency=None)
    assert isinstance(small, Translate)
    return replace(small, min_language_score=0.0, min_gzip_ratio=0.0, max_length_ratio=100.0)
