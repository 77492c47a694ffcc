"""A family of models as the stages would record it, small enough to read; and release folders written from it."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from posttrain.release.card import (
    CardInputs,
    CardLicense,
    Sibling,
    Weights,
    read_weights,
    result_files,
    usage_record,
    write_card,
)

ORG = "lab"
BASE = "meta-llama/Llama-3.1-8B"
SFT, INSTRUCT, GPTQ = (f"{ORG}/Llama-Example-8B-{kind}" for kind in ("SFT", "Instruct", "Instruct-GPTQ"))
DEFAULT, OTHER = "gptq-4bit-64g-actorder_True", "gptq-8bit-128g-actorder_True"
HELPSTEER = "nvidia/HelpSteer3"
OASST = "OpenAssistant/oasst2"
VERSIONS = {"python": "3.11.7", "posttrain": "0.1.0", "torch": "2.13.0", "transformers": "5.23.0", "trl": "1.16.0"}
MODEL = {"base": BASE, "dtype": "bfloat16", "trainable_dtype": "float32", "chat_template": "llama-3.1", "new": None}

TRAINING: dict[str, Any] = {
    "num_train_epochs": 2.0,
    "max_steps": -1,
    "global_batch_size": 128,
    "learning_rate": 5e-06,
    "lr_scheduler_type": "linear",
    "lr_scheduler_kwargs": {},
    "warmup_ratio": 0.03,
    "weight_decay": 0.0,
    "adam_beta1": 0.9,
    "adam_beta2": 0.999,
    "max_grad_norm": 1.0,
    "optim": "adamw_torch",
    "max_length": 4096,
    "trainer": {},
}


def manifest_of(stage: str, recipe: Mapping[str, Any], metrics: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "stage": stage,
        "recipe": dict(recipe),
        "metrics": dict(metrics),
        "seed": 42,
        "world_size": 8,
        "versions": VERSIONS,
        "sources": [],
        "inputs": {},
        "files": {"model.safetensors": {"bytes": 123456, "sha256": "ab" * 32}},
        **more,
    }


def manifests() -> dict[str, Any]:
    """Return the manifests of a chain from a base of the hub to an evaluated Instruct model."""
    sft = {**TRAINING, "packing": "bfd", "loss_on": "assistant", "lora": None, "quantization": "none"}
    dpo = {
        **TRAINING,
        "num_train_epochs": 3.0,
        "global_batch_size": 64,
        "learning_rate": 5e-07,
        "lr_scheduler_type": "cosine",
        "warmup_ratio": 0.1,
        "beta": 0.01,
        "loss_type": ["sigmoid"],
        "label_smoothing": 0.0,
        "lora": {"r": 16, "alpha": 32, "merge": True, "target_modules": "all-linear"},
        "quantization": "none",
    }
    shares = {
        "oasst2": {"rows": 4000, "row_share": 0.8, "trained_tokens": 620000, "trained_token_share": 0.775},
        "own rows": {"rows": 1000, "row_share": 0.2, "trained_tokens": 180000, "trained_token_share": 0.225},
    }
    return {
        "data": manifest_of("data", {"data": {}}, {"sft/train": 5000}),
        "tokenize-sft": manifest_of("tokenize-sft", {}, {"sources": shares}),
        "tokenize-preference": manifest_of("tokenize-preference", {}, {"sources": {}}),
        "sft": manifest_of(
            "sft",
            {"model": MODEL, "sft": sft},
            {"steps": 62, "rows": 5000, "tokens": 1900000, "trained_tokens": 800000, "after/loss": 1.2345},
        ),
        "dpo": manifest_of(
            "dpo",
            {"model": MODEL, "dpo": dpo},
            {
                "steps": 94,
                "rows": 2000,
                "before/loss": 0.6931,
                "after/loss": 0.5512,
                "after/rewards/accuracies": 0.7125,
            },
        ),
        "eval": manifest_of(
            "eval",
            {},
            {},
            sources=[
                {"task": "ifeval-en", "split": "train", "path": "google/IFEval", "revision": "c" * 40, "files": []},
                {
                    "task": "ifeval-fi",
                    "path": "ifeval-fi.jsonl",
                    "revision": None,
                    "files": [{"name": "ifeval-fi.jsonl"}],
                },
            ],
        ),
    }


def _source(name: str, source: str, path: str, train: int, held_out: int, licence: str, **more: Any) -> dict[str, Any]:
    return {
        "entry": "data.sft.0",
        "name": name,
        "source": source,
        "provenance": {"path": path, "revision": "d" * 40, "files": []},
        "unit": "row",
        "read": train + held_out + 10,
        "train": train,
        "train_repeats": 0,
        "validation": held_out,
        "rejected": {"length": {"too long": 10}},
        "licenses": {licence: train + held_out},
        "languages": {"en": train, "fi": held_out},
        **more,
    }


def summary() -> dict[str, Any]:
    """Return a `data/summary.json`: two sources of conversations, one of pairs."""
    local = {"path": "own-rows.jsonl", "revision": None, "files": [{"name": "own-rows.jsonl"}]}
    sft = [
        _source("oasst2", "oasst", OASST, 4000, 80, "Apache-2.0"),
        _source("own rows", "generic", "own-rows.jsonl", 1000, 20, "MIT", provenance=local),
    ]
    pairs = [_source("helpsteer3", "helpsteer3", HELPSTEER, 2000, 40, "CC-BY-4.0")]
    return {
        "seed": 42,
        "settings": {"validation": {"fraction": 0.02, "max_rows": 100}, "duplicates": {"exact": True}},
        "sets": {
            "sft": {"sources": sft, "train": 5000, "validation": 100, "rejected": 20},
            "preference": {"sources": pairs, "train": 2000, "validation": 40, "rejected": 10},
        },
    }


def _task(
    title: str, language: str, metrics: Mapping[str, Any], samples: int = 541, shots: int = 0, kind: str = "ifeval"
) -> dict[str, Any]:
    return {
        "kind": kind,
        "title": title,
        "language": language,
        "version": "1",
        "prompts_sha256": "e" * 64,
        "num_fewshot": shots,
        "samples": samples,
        "metrics": dict(metrics),
        "options": {},
    }


def _percent(*, primary: bool) -> dict[str, Any]:
    return {"unit": "%", "higher_is_better": True, "primary": primary}


def results() -> dict[str, Any]:
    """Return an `eval/results.json` of the family, one baseline and the variants."""
    ifeval = {"prompt_level_strict_acc": _percent(primary=True), "inst_level_strict_acc": _percent(primary=False)}
    tasks = {
        "ifeval-en": _task("IFEval", "en", ifeval),
        "ifeval-fi": _task("IFEval", "fi", ifeval, samples=100),
        "arc-challenge-en": _task("ARC-Challenge", "en", {"acc_norm": _percent(primary=True)}, 1172, 25, kind="choice"),
        "truthfulqa-en": _task("TruthfulQA", "en", {"mc2": _percent(primary=True)}, 817, kind="choice"),
        "mt-bench-fi": _task(
            "MT-Bench", "fi", {"score": {"unit": "score 1-10", "higher_is_better": True, "primary": True}}, samples=80
        ),
    }
    tasks["mt-bench-fi"]["options"] = {"judge": {"model": "meta-llama/Llama-3.3-70B-Instruct", "revision": None}}
    tasks["ifeval-fi"]["options"] = {"max_tokens": 64, "skip_instructions": ["language:response_language"]}
    scores = {  # ifeval-en strict, by instruction; ifeval-fi the same; TruthfulQA; MT-Bench
        "base": (20.1478, 33.3333, 15.0, 28.25, 44.4444, None),
        "sft": (50.2773, 61.2345, 44.0, 55.5, 47.123, 5.875),
        "instruct": (56.3771, 66.789, 51.0, 60.25, 49.876, 6.3125),
        "Llama-3.1-8B-Instruct": (70.0554, 78.1234, 48.0, 57.75, 53.21, 5.0625),
        DEFAULT: (54.8983, 65.4321, 49.0, 58.5, 49.321, None),
        OTHER: (56.1922, 66.6667, 51.0, 60.0, 49.852, None),
    }
    found: dict[str, Any] = {}
    for model, (en, en_inst, fi, fi_inst, truthful, judged) in scores.items():
        found[model] = {
            "ifeval-en": {
                "prompt_level_strict_acc": {"value": en, "interval": [en - 4.1234, en + 4.2345]},
                "inst_level_strict_acc": {"value": en_inst, "interval": None},
            },
            "ifeval-fi": {
                "prompt_level_strict_acc": {"value": fi, "interval": [fi - 9.5, fi + 9.75]},
                "inst_level_strict_acc": {"value": fi_inst, "interval": None},
            },
            "arc-challenge-en": {"acc_norm": {"value": truthful + 6.25, "interval": None}},
            "truthfulqa-en": {"mc2": {"value": truthful, "interval": None}},
        }
        if judged is not None:
            found[model]["mt-bench-fi"] = {"score": {"value": judged, "interval": [judged - 0.25, judged + 0.3]}}
    kinds = {"base": "base", "sft": "sft", "instruct": "instruct", DEFAULT: "variant", OTHER: "variant"}
    metric = "prompt_level_strict_acc"
    return {
        "format": 1,
        "settings": {
            "dtype": "float32",
            "batch_size": 4,
            "device": "cpu",
            "seed": 42,
            "resamples": 1000,
            "level": 0.95,
        },
        "models": {
            name: {"kind": kinds.get(name, "baseline"), "source": "checkpoint", "digest": None} for name in scores
        },
        "tasks": tasks,
        "results": found,
        "comparisons": [
            _comparison("ifeval-en", metric, "instruct", "sft", 6.0998, [2.0, 10.25], 0.004),
            _comparison("ifeval-en", metric, "sft", "base", 30.1295, [25.5, 34.75], 0.002),
            _comparison("ifeval-en", metric, DEFAULT, "instruct", -1.4788, [-4.0, 1.25], 0.26),
        ],
        "notes": ["instruct, ifeval-fi: 3 of 100 cut off by the limit on tokens"],
    }


def _comparison(
    task: str, metric: str, a: str, b: str, difference: float, interval: list[float], p_value: float
) -> dict[str, Any]:
    named = {"task": task, "metric": metric, "a": a, "b": b}
    return {**named, "difference": difference, "interval": interval, "p_value": p_value}


def variants() -> dict[str, Any]:
    """Return a `quantized/variants.json` with two variants that work and one that does not."""

    def record(name: str, bits: int, group: int, size: int, perplexity: float | None, **more: Any) -> dict[str, Any]:
        ratio = None if perplexity is None else perplexity / 8.1234
        return {
            "name": name,
            "bits": bits,
            "group_size": group,
            "desc_act": True,
            "damp_percent": 0.1,
            "sym": bits == 8,
            "mse": 2.4 if bits == 4 else 0.0,
            "calibration": "wikitext",
            "length": 2048,
            "bytes": size,
            "perplexity": perplexity,
            "perplexity_ratio": ratio,
            "backends": {"auto": {"generates": perplexity is not None}, "torch": {"generates": perplexity is not None}},
            "exllama": bits == 4,
            "advice": f"{bits} bits, groups of {group}, act order: see the perplexity.",
            "failed": None,
            "default": name == DEFAULT,
            **more,
        }

    broken = record("gptq-3bit-32g-actorder_True", 3, 32, 1, None, failed="it generates with no backend")
    return {
        "format": 1,
        "of": "instruct",
        "base": {
            "dtype": "bfloat16",
            "bytes": 16060522496,
            "perplexity": {"value": 8.1234, "computed_in": "float32", "tokens": 32768},
        },
        "heldout": {"name": "wikitext", "samples": 32, "length": 1024, "tokens": 32768},
        "calibration": {"name": "wikitext", "samples": 128, "length": 2048},
        "variants": [
            record(DEFAULT, 4, 64, 5860123456, 8.4567),
            record(OTHER, 8, 128, 9120654321, 8.1299),
            broken,
        ],
    }


LICENSE = CardLicense(ids=("llama3.1",), base=("llama3.1",), files=("LICENSE", "NOTICE"))
FAMILY = (
    Sibling(name="sft", repository=SFT, kind="sft"),
    Sibling(name="instruct", repository=INSTRUCT, kind="instruct"),
    Sibling(name=DEFAULT, repository=GPTQ, kind="variant"),
    Sibling(name=OTHER, repository=GPTQ, kind="variant", revision=OTHER),
)


def inputs(of: str = "instruct", **changes: Any) -> CardInputs:
    """Return the inputs of one member's card."""
    own = next(member for member in FAMILY if member.name == of)
    made = CardInputs(
        name=own.name,
        repository=own.repository,
        kind=own.kind,
        revision=own.revision,
        recipe={"name": "example-8b", "model": MODEL},
        manifests=manifests(),
        license=LICENSE,
        base_model=BASE,
        siblings=[member for member in FAMILY if member.name != of],
        results=results(),
        variants=variants() if own.kind == "variant" else None,
        summary=summary(),
        weights=Weights(dtype="bfloat16", bytes=64, parameters=None if own.kind == "variant" else 32),
    )
    return replace(made, **copy.deepcopy(changes))


def write_folder(of: CardInputs, folder: Path) -> Path:
    """Write what a release folder holds of a card: the card, what it cites, and a model of a few bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    write_weights(folder / "model.safetensors", quantised=of.kind == "variant")
    of = replace(of, weights=read_weights(folder))
    for name, text in result_files(of).items():
        put(folder / name, text)
    for stage, manifest in of.manifests.items():
        put(folder / "manifests" / f"{stage}.json", json.dumps(manifest))
    put(folder / "recipe.yaml", yaml.safe_dump(dict(of.recipe)))
    for name in of.license.files:
        put(folder / name, "The terms.\n")
    put(folder / "config.json", json.dumps({"model_type": "llama", "dtype": "bfloat16"}))
    card = write_card(of)
    put(folder / "results" / "usage.json", usage_record(card))
    put(folder / "README.md", card)
    return folder


def put(path: Path, text: str) -> None:
    """Write a file, and the folder that it is in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def write_weights(path: Path, *, dtype: str = "BF16", quantised: bool = False) -> None:
    """Write a safetensors file by its format: length of the header, header, numbers. It has 64 bytes of them."""
    entries = {"weight": {"dtype": dtype, "shape": [64 // (4 if dtype == "F32" else 2)], "data_offsets": [0, 64]}}
    if quantised:
        entries["qweight"] = {"dtype": "I32", "shape": [0], "data_offsets": [64, 64]}
    header = json.dumps(entries).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(64))
