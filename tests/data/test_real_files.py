"""The whole chain over every real file there is, beside the samples of the sources that could not be had."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pyarrow")
pytest.importorskip("heliport")

from posttrain.data.build import build
from posttrain.data.summary import Summary
from posttrain.recipe.schema import Data
from posttrain.recipe.schema_data import (
    Decontamination,
    Duplicates,
    EvalSet,
    Filters,
    LanguageFilter,
    LengthFilter,
    MarkupFilter,
    NearDuplicates,
    Pii,
    RefusalFilter,
    RepetitionFilter,
    TruncationFilter,
    VendorFilter,
)

ALL_FILTERS = Filters(
    markup=MarkupFilter(),
    truncation=TruncationFilter(),
    length=LengthFilter(max_response=20_000),
    language=LanguageFilter(),
    repetition=RepetitionFilter(),
    refusal=RefusalFilter(),
    vendor=VendorFilter(),
)


def section(folder: Path) -> Data:
    def oasst(name: str, file: str, language: str, **keys: Any) -> dict[str, Any]:
        return {"source": "oasst", "name": name, "path": str(folder / file), "language": language, **keys}

    messages = [(f"oasst1-{language}", f"oasst1-{language}-messages.jsonl", language) for language in ("en", "fi")]
    evals = [("mt-bench-en", "en"), ("mt-bench-fi", "fi"), ("ifeval-en", "en")]
    return Data(
        sft=[
            *(oasst(*entry) for entry in messages),
            oasst("oasst-trees", "oasst-en-trees.jsonl", "en"),
            {"source": "generic", "name": "dolly", "path": str(folder / "dolly-en-fi.jsonl"), "language": "fi"},
            {"source": "europarl", "name": "tatoeba", "path": str(folder / "tatoeba.en-fi"), "max_rows": 500},
            {"source": "magpie", "name": "magpie-5", "path": str(folder / "magpie-5-responses-armorm.jsonl")},
            {"source": "tulu3", "path": "builtin:samples/tulu3.jsonl", "language": "en"},
            {"source": "magpie", "name": "magpie-sample", "path": "builtin:samples/magpie.jsonl"},
            {"source": "avoin_avustaja", "path": "builtin:samples/avoin-avustaja.jsonl", "language": "fi"},
        ],
        preference=[
            *(oasst(*entry) for entry in messages),
            {"source": "helpsteer3", "path": "builtin:samples/helpsteer3.jsonl"},
            {"source": "ultrafeedback", "path": "builtin:samples/ultrafeedback.jsonl"},
        ],
        filters=ALL_FILTERS,
        pii=Pii(),
        duplicates=Duplicates(near=NearDuplicates()),
        decontaminate=Decontamination(
            against=[
                EvalSet(name=name, path=str(folder / f"{name}.jsonl"), language=language) for name, language in evals
            ]
        ),
        num_proc=1,
    )


@pytest.fixture(scope="module")
def built(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Summary]:
    out = tmp_path_factory.mktemp("real") / "data"
    return out, build(section(real_data), 42, out, title="real files")


def test_every_source_gives_rows_and_none_is_lost(built: tuple[Path, Summary]) -> None:
    import pyarrow.parquet

    out, summary = built
    for name, part in summary.sets.items():
        files = [out / name / f"{file}.parquet" for file in ("train", "validation", "rejected")]
        sizes = [pyarrow.parquet.read_metadata(file).num_rows for file in files]
        assert sizes == [part.train, part.validation, part.rejected]
        for source in part.sources:
            refused = {step: sum(reasons.values()) for step, reasons in source.rejected.items()}
            assert refused.pop("read", 0) == 0
            assert source.units == source.used + refused.pop("convert", 0)
            assert source.rows == source.train + source.validation + source.sampled_out + sum(refused.values())
            assert source.train > 0, source.name
    assert summary.sets["sft"].train > 1000


def test_oasst_gives_the_same_threads_in_both_languages(built: tuple[Path, Summary]) -> None:
    _, summary = built
    for name, expected in (("sft", 90), ("preference", 197)):
        english, finnish = (source.rows for source in summary.sets[name].sources[:2])
        assert english == finnish == expected


def test_the_report_and_the_card_name_every_source(built: tuple[Path, Summary]) -> None:
    out, summary = built
    report, card = (out / "report.html").read_text("utf-8"), (out / "README.md").read_text("utf-8")
    for part in summary.sets.values():
        for source in part.sources:
            assert source.name in report
            assert source.name in card
    assert "http://" not in report.replace("http://www.w3.org", "").split("</style>")[0]
    assert json.loads((out / "summary.json").read_text("utf-8"))["sets"].keys() == summary.sets.keys()
