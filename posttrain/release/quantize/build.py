"""Building the variants of a checkpoint: each made, put in order, measured and made to generate, or found to fail."""

from __future__ import annotations

import json
import math
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from posttrain.errors import UserError
from posttrain.recipe.schema_quantize import Variant
from posttrain.release.quantize import gptq, measure
from posttrain.release.quantize.advice import advice
from posttrain.release.quantize.kernels import exllama, undivided, warnings
from posttrain.release.quantize.prepare import Prepared, Task, prepare
from posttrain.release.quantize.process import Worker, WorkerFailed
from posttrain.release.quantize.source import (
    CONFIG,
    input_columns,
    read_json,
    source_problems,
    tensor_shapes,
    weight_bytes,
)
from posttrain.release.quantize.tidy import tidy

VARIANTS = "variants.json"
FORMAT = 1
NEW_TOKENS = 8  # enough for several forward passes, with and without a cache
DIGITS = 4  # of perplexities and their ratios
_PERPLEXITY_BACKEND = "torch"  # it unpacks any variant


def build(task: Task) -> dict[str, Any]:
    """Build every variant of `task.settings`; those that an interrupted build has finished are kept.

    Returns:
        Figures for the manifest: threads, seconds and perplexity of each variant, and what failed.

    Raises:
        UserError: The checkpoint cannot be quantised, or no variant works.
    """
    if problems := source_problems(task.source, f"quantize.of={task.of}", task.model.trust_remote_code):
        raise UserError(problems)
    columns = input_columns(tensor_shapes(task.source))
    for line in warnings(task.settings.variants, columns):
        task.say(f"warning: {line}")
    prepared = prepare(task)
    worker = Worker(
        task.work / "jobs",
        device=prepared.device,
        threads=task.settings.threads,
        online=task.model.trust_remote_code,
    )
    base = _base(task, prepared, worker)
    builder = _Variant(task, prepared, worker, columns, base)
    records = [builder.record(variant) for variant in task.settings.variants]
    return _finish(task, prepared, base, records)


def _remember(path: Path, record: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    making = path.with_name(f".{path.name}")
    making.write_text(json.dumps(record), encoding="utf-8")
    os.replace(making, path)


def _base(task: Task, prepared: Prepared, worker: Worker) -> dict[str, Any]:
    """Measure the unquantised checkpoint, once."""
    known = task.work / "base.json"
    if known.is_file():
        return read_json(known)
    task.say(f"measuring the {task.of} checkpoint, unquantised")
    try:
        found = worker.run("measure", "base", _measure_job(task, prepared, task.source, backend=None, generates=False))
    except WorkerFailed as error:
        raise UserError(
            f"quantize.of={task.of}: the unquantised checkpoint cannot be measured: {error}; see {worker.log('base')}"
        ) from error
    config = read_json(task.source / CONFIG)
    record = {
        "dtype": config.get("dtype") or config.get("torch_dtype"),
        "bytes": weight_bytes(task.source),
        "loss": found["loss"],
        "tokens": found["tokens"],
    }
    _remember(known, record)
    return record


def _measure_job(
    task: Task, prepared: Prepared, folder: Path, *, backend: str | None, generates: bool, measures: bool = True
) -> dict[str, Any]:
    return asdict(
        measure.Job(
            folder=str(folder),
            backend=backend,
            prompt=prepared.prompt if generates else [],
            new_tokens=NEW_TOKENS,
            rows=prepared.heldout.rows if measures else [],
            device=prepared.device,
            dtype=prepared.dtype,
            trust_remote_code=task.model.trust_remote_code,
        )
    )


class _Variant:
    """Builds one variant after another, each with a record of what came of it."""

    def __init__(
        self, task: Task, prepared: Prepared, worker: Worker, columns: dict[str, int], base: dict[str, Any]
    ) -> None:
        self.task, self.prepared, self.worker = task, prepared, worker
        self.columns, self.base = columns, base

    def record(self, variant: Variant) -> dict[str, Any]:
        """Return the record of a variant, from an earlier start if that finished it."""
        name = variant.name
        known = self.task.work / "done" / f"{name}.json"
        if known.is_file() and (self.task.folder / name).is_dir():
            self.task.say(f"{name}: finished before")
            return read_json(known)
        clock = time.monotonic()
        record = self._settings(variant)
        try:
            record |= self._made(variant, name)
            record |= self._measured(name)
        except WorkerFailed as error:
            record["failed"] = str(error)
        record["advice"] = advice(record)
        record["seconds"] = round(time.monotonic() - clock, 1)
        if record["failed"] is None:
            _remember(known, record)
            self.task.say(f"{name}: {record['bytes'] / 1e6:,.1f} MB; {record['advice']} ({record['seconds']:.0f} s)")
        else:
            shutil.rmtree(self.task.folder / name, ignore_errors=True)
            self.task.say(f"{name}: FAILED, {record['failed']}")
        return record

    def _settings(self, variant: Variant) -> dict[str, Any]:
        calibration = self.prepared.calibration
        config = read_json(self.task.source / CONFIG)
        return {
            "name": variant.name,
            **asdict(variant),
            "calibration": calibration.name,
            "length": calibration.length,
            "bytes": None,
            "perplexity": None,
            "perplexity_ratio": None,
            "backends": {},
            "undivided": list(undivided(variant, self.columns)),
            "exllama": exllama(variant, str(config.get("model_type"))),
            "failed": None,
            "threads": None,
        }

    def _made(self, variant: Variant, name: str) -> dict[str, Any]:
        """Quantise, unless an earlier start has; return what the manifest wants to know of it."""
        task, final, known = self.task, self.task.folder / name, self.task.work / "made" / f"{name}.json"
        if known.is_file() and final.is_dir():
            return read_json(known)
        making, scratch = task.work / "making" / name, task.work / "scratch"
        for folder in (making, scratch, final):
            shutil.rmtree(folder, ignore_errors=True)
        scratch.mkdir(parents=True)
        making.parent.mkdir(parents=True, exist_ok=True)
        task.say(f"{name}: quantising; GPTQModel's own words are in {self.worker.log(name)}")
        job = gptq.Job(
            source=str(task.source),
            target=str(making),
            variant=asdict(variant),
            rows=self.prepared.calibration.rows,
            device=self.prepared.device,
            dtype=self.prepared.dtype,
            batch_size=task.settings.batch_size,
            scratch=str(scratch),
            trust_remote_code=task.model.trust_remote_code,
        )
        done = self.worker.run("quantise", name, asdict(job))
        shutil.rmtree(scratch)
        tidy(making, task.source, task.tokenizer, template=self.prepared.template, stops=self.prepared.stops)
        os.replace(making, final)
        made = {"bytes": weight_bytes(final), "threads": done["threads"]}
        _remember(known, made)
        return made

    def _measured(self, name: str) -> dict[str, Any]:
        """Load the variant anew with each backend and have it generate; measure its perplexity with one of them."""
        task, final = self.task, self.task.folder / name
        backends: dict[str, dict[str, Any]] = {}
        loss: float | None = None
        for backend in task.settings.backends:
            measures = backend == _PERPLEXITY_BACKEND
            job = _measure_job(task, self.prepared, final, backend=backend, generates=True, measures=measures)
            try:
                found = self.worker.run("measure", f"{name}.{backend}", job)
                loss = found.get("loss", loss)
                backends[backend] = {"generates": True}
            except WorkerFailed as error:
                backends[backend] = {"generates": False, "reason": str(error)}
                task.say(f"{name}: does not generate with backend {backend}: {error}")
        if not any(found["generates"] for found in backends.values()):
            reason = "; ".join(f"{backend}: {found['reason']}" for backend, found in backends.items())
            return {"backends": backends, "failed": f"it generates with no backend ({reason})"}
        if loss is None:
            job = _measure_job(task, self.prepared, final, backend=_PERPLEXITY_BACKEND, generates=False)
            loss = self.worker.run("measure", f"{name}.perplexity", job)["loss"]
        if not math.isfinite(measure.perplexity(loss)):
            return {"backends": backends, "failed": "its perplexity is not a number"}
        return {
            "backends": backends,
            "perplexity": round(measure.perplexity(loss), DIGITS),
            "perplexity_ratio": round(math.exp(loss - self.base["loss"]), DIGITS),
        }


def _finish(task: Task, prepared: Prepared, base: dict[str, Any], records: list[dict[str, Any]]) -> dict[str, Any]:
    """Write `variants.json` and return the figures for the manifest."""
    works = [record["name"] for record in records if record["failed"] is None]
    failed = {record["name"]: record["failed"] for record in records if record["failed"] is not None}
    if not works:
        raise UserError(
            [f"quantize: no variant works; {name}: {reason}" for name, reason in failed.items()]
            + [f"quantize: what GPTQModel said is in {task.work / 'jobs'}"]
        )
    wanted = task.settings.default or records[0]["name"]
    default = wanted if wanted in works else works[0]
    if default != wanted:
        task.say(f"warning: {wanted}, which was to be the default, failed; {default} takes its place")
    figures: dict[str, Any] = {"device": prepared.device, "compute_dtype": prepared.dtype, "failed": failed}
    for record in records:
        for key in ("seconds", "threads"):
            figures[f"{record['name']}/{key}"] = record.pop(key)
        figures[f"{record['name']}/perplexity_ratio"] = record["perplexity_ratio"]
        record["default"] = record["name"] == default
    heldout = prepared.heldout.identity()
    content = {
        "format": FORMAT,
        "of": task.of,
        "device": prepared.device,
        "base": {
            "dtype": base["dtype"],
            "bytes": base["bytes"],
            "perplexity": {
                "value": round(measure.perplexity(base["loss"]), DIGITS),
                "computed_in": prepared.dtype,
                "tokens": base["tokens"],
            },
        },
        "heldout": heldout,
        "calibration": prepared.calibration.identity(),
        "variants": records,
    }
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    (task.folder / VARIANTS).write_text(text, encoding="utf-8")
    if failed:
        task.say(f"warning: {len(failed)} of {len(records)} variants failed: {', '.join(failed)}")
    return figures
