from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from posttrain.preflight.findings import Finding
from posttrain.recipe.schema_data import (
    Data,
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
    SemanticDuplicates,
    TruncationFilter,
    VendorFilter,
)
from posttrain.release.card import CardLicense, lint_card
from posttrain.release.card.inputs import Sibling
from posttrain.release.card.lint import check
from tests.release.card.family import (
    BASE,
    DEFAULT,
    FAMILY,
    GPTQ,
    LICENSE,
    OTHER,
    inputs,
    summary,
    write_folder,
    write_weights,
)

Copied = Callable[[str], Path]


def errors(found: list[Finding]) -> list[str]:
    return [finding.text for finding in found if finding.level == "error"]


def spoil(folder: Path, old: str, new: str, *, count: int = 1) -> list[str]:
    """Replace a text on the card, which has to be there, and return the errors."""
    card = folder / "README.md"
    text = card.read_text(encoding="utf-8")
    assert old in text, f"the card has no {old!r}"
    card.write_text(text.replace(old, new, count), encoding="utf-8")
    return errors(lint_card(folder))


def edit(path: Path, change: Callable[[Any], None]) -> None:
    values = json.loads(path.read_text(encoding="utf-8"))
    change(values)
    path.write_text(json.dumps(values), encoding="utf-8")


@pytest.mark.parametrize("name", [member.name for member in FAMILY])
def test_a_good_card_has_no_findings(good: dict[str, Path], name: str) -> None:
    assert lint_card(good[name]) == []


@pytest.mark.parametrize("name", [member.name for member in FAMILY])
def test_a_family_whose_owner_is_not_named_yet_is_not_linked(name: str, tmp_path: Path) -> None:
    def unowned(member: Sibling) -> Sibling:
        return replace(member, repository=member.repository.rpartition("/")[2])

    made = inputs(name)
    made = replace(
        made,
        repository=made.repository.rpartition("/")[2],
        siblings=[unowned(sibling) for sibling in made.siblings],
    )
    folder = write_folder(made, tmp_path / name)
    assert lint_card(folder) == []
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "Llama-Example-8B-Instruct" in card
    assert "huggingface.co/Llama-Example" not in card


def test_every_step_of_the_data_in_words_has_no_findings(tmp_path: Path) -> None:
    data = Data(
        filters=Filters(
            markup=MarkupFilter(),
            truncation=TruncationFilter(),
            length=LengthFilter(min_prompt=3, max_response=9000, max_tokens=4096),
            language=LanguageFilter(),
            repetition=RepetitionFilter(max_share=0.35),
            refusal=RefusalFilter(),
            vendor=VendorFilter(names=["Agent 47"]),
        ),
        pii=Pii(),
        duplicates=Duplicates(near=NearDuplicates(), semantic=SemanticDuplicates()),
        decontaminate=Decontamination(against=[EvalSet(path="HuggingFaceH4/mt_bench_prompts", name="mt-bench")]),
    )
    rows = {**summary(), "settings": asdict(data)}
    folder = write_folder(inputs(summary=rows), tmp_path / "all")
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "**Repetition.** Answers of 50 words or more are rejected where over 35% of" in card
    assert "hold 50% or more of the word n-grams" in card
    assert lint_card(folder) == []


# What was found on published cards.


def test_description_with_another_group_size(copied: Copied) -> None:
    found = spoil(copied(OTHER), "8 bits, groups of 128, act order", "8 bits, groups of 32, act order")
    assert any("speaks of 'groups of 32'" in text and "has groups of 128" in text for text in found)


def test_usage_code_that_loads_another_repository(copied: Copied) -> None:
    found = spoil(
        copied("instruct"), 'repository = "lab/Llama-Example-8B-Instruct"', 'repository = "lab/Llama-Example"'
    )
    assert "the usage code loads 'lab/Llama-Example', and the repository is 'lab/Llama-Example-8B-Instruct'" in found
    assert any("not the code that was run" in text for text in found)


def test_dtype_that_is_not_that_of_the_weights(copied: Copied) -> None:
    folder = copied("sft")
    found = spoil(folder, "parameters in bfloat16", "parameters in float16")
    assert any("the weights are in float16, and they are in bfloat16" in text for text in found)
    assert any("speaks of float16" in text for text in found)


def test_dtype_of_the_training_that_is_not_the_manifests(copied: Copied) -> None:
    found = spoil(copied("sft"), "| computed in bfloat16,", "| computed in float32,")
    assert any("Number types, SFT" in text and "bfloat16 and float32" in text for text in found)


def test_weights_in_another_dtype_than_the_training_says(copied: Copied) -> None:
    folder = copied("sft")
    write_weights(folder / "model.safetensors", dtype="F32")
    found = errors(lint_card(folder))
    assert "the weights are in float32, and manifests/sft.json says bfloat16" in found
    assert "config.json says bfloat16, and the weights are in float32" in found


def test_column_headed_with_something_else_than_a_models_name(copied: Copied) -> None:
    found = spoil(copied("instruct"), "| Llama-Example-8B-Instruct |", "| Example Chat |")
    assert any("headed 'Example Chat', which is no model's name" in text for text in found)
    assert any("no column of results is headed 'Llama-Example-8B-Instruct'" in text for text in found)


def test_columns_of_two_models_exchanged(copied: Copied) -> None:
    head = "| Llama-3.1-8B | Llama-Example-8B-SFT |"
    found = spoil(copied("instruct"), head, "| Llama-Example-8B-SFT | Llama-3.1-8B |")
    assert any("20.1, and results/eval.json has 50.2773" in text for text in found)


def test_licence_that_is_newer_than_the_bases(copied: Copied, tmp_path: Path) -> None:
    found = spoil(copied("instruct"), "license: llama3.1", "license: llama3.3")
    assert any("llama3.3 is newer than that of the base, llama3.1" in text for text in found)
    newer = CardLicense(ids=("llama3.3",), base=("llama3.1",), files=LICENSE.files)
    silent = write_folder(inputs(license=newer), tmp_path / "silent")
    assert any("llama3.3 is newer than that of the base" in text for text in errors(lint_card(silent)))
    reason = "Its answers were written by Llama 3.3, whose licence covers what is trained on them."
    explained = write_folder(inputs(license=replace(newer, reason=reason)), tmp_path / "explained")
    assert lint_card(explained) == []


@pytest.mark.parametrize(
    "sentence",
    [
        "Compared with SFT it improves IFEval by 6%.",
        "It is 6.1% better than SFT on IFEval.",
        "IFEval: +6.1% over SFT.",
        "IFEval rises from 50.3% to 56.4%, a gain of 6.1%.",
    ],
)
def test_percent_where_percentage_points_are_meant(copied: Copied, sentence: str) -> None:
    found = spoil(copied("instruct"), "Differences between", f"{sentence}\n\nDifferences between")
    assert len(found) == 1
    assert "the difference of two percentages is in percentage points" in found[0]


def test_percentage_points_and_levels_are_no_fault(copied: Copied) -> None:
    sentence = "IFEval rises from 50.3% to 56.4%, a gain of 6.1 percentage points; 6.3 on MT-Bench."
    assert spoil(copied("instruct"), "Differences between", f"{sentence}\n\nDifferences between") == []


def test_unit_of_a_comparison_and_percent_in_the_variants_results(copied: Copied) -> None:
    assert any(
        "is in percentage points, not in '%'" in text
        for text in spoil(copied("instruct"), "| 0.004 | percentage points |", "| 0.004 | % |")
    )
    assert any(
        "a difference has no percent sign" in text for text in spoil(copied(DEFAULT), "54.9 (−1.5)", "54.9 (−1.5%)")
    )


def test_no_base_model(copied: Copied) -> None:
    found = spoil(copied("sft"), f"base_model: {BASE}\n", "")
    assert any(f"base_model is missing; it was made from '{BASE}'" in text for text in found)


def test_another_base_model(copied: Copied) -> None:
    found = spoil(copied("sft"), f"base_model: {BASE}\n", "base_model: meta-llama/Llama-3.3-8B\n")
    assert f"metadata: base_model is 'meta-llama/Llama-3.3-8B', and it was made from '{BASE}'" in found


def test_a_base_in_a_folder_has_to_be_named(tmp_path: Path) -> None:
    recipe = {"name": "example-8b", "model": {"base": ".../checkpoint", "new": None}}
    folder = write_folder(inputs("sft", base_model=None, recipe=recipe), tmp_path / "sft")
    assert any(
        "base_model is missing; the recipe's base is '.../checkpoint'" in text for text in errors(lint_card(folder))
    )


def test_a_new_model_needs_no_base_model(tmp_path: Path) -> None:
    recipe = {"name": "example-8b", "model": {"base": None, "new": {"vocab_size": 2048}}}
    own = CardLicense(ids=("apache-2.0",), files=("LICENSE",))
    folder = write_folder(inputs("sft", base_model=None, recipe=recipe, license=own, siblings=()), tmp_path / "sft")
    assert lint_card(folder) == []


def test_no_results_in_the_metadata(copied: Copied) -> None:
    folder = copied("instruct")
    text = (folder / "README.md").read_text(encoding="utf-8")
    head = text[text.index("model-index:") : text.index("\n---\n")]
    assert any("there are no results in it (model-index)" in found for found in spoil(folder, f"\n{head}", ""))


# Names, numbers, averages.


def test_title_of_another_model(copied: Copied) -> None:
    found = spoil(copied("instruct"), "# Llama-Example-8B-Instruct", "# Llama-Example-8B-Chat")
    assert any("headed 'Llama-Example-8B-Chat'" in text for text in found)


def test_links_to_other_repositories(copied: Copied) -> None:
    found = spoil(copied("sft"), "huggingface.co/lab/Llama-Example-8B-Instruct)", "huggingface.co/lab/Gone)")
    assert found == ["the link to https://huggingface.co/lab/Gone leads to no model of its family"]
    found = spoil(copied("instruct"), "datasets/nvidia/HelpSteer3", "datasets/nvidia/HelpSteer2")
    assert found == [
        "the link to https://huggingface.co/datasets/nvidia/HelpSteer2 leads to no data set it was trained on"
    ]


def test_branch_of_a_variant(copied: Copied) -> None:
    found = spoil(copied(OTHER), f'branch = "{OTHER}"', 'branch = "gptq-8bit-32g-actorder_True"')
    assert any(f"the model is on '{OTHER}'" in text for text in found)
    found = spoil(copied(DEFAULT), f"hf download {GPTQ}", f"hf download {GPTQ} --revision {OTHER}")
    assert any("downloads" in text and "which is not this model" in text for text in found)


@pytest.mark.parametrize(
    ("name", "old", "new", "said"),
    [
        ("instruct", "| 56.4 (52.3–60.6) |", "| 58.4 (52.3–60.6) |", "58.4, and results/eval.json has 56.3771"),
        ("instruct", "| 56.4 (52.3–60.6) |", "| 56.4 (54.3–60.6) |", "the interval 54.3–60.6"),
        ("instruct", "| 56.4 (52.3–60.6) |", "| – |", "a dash, and results/eval.json has 56.3771"),
        ("instruct", "| – | 5.88", "| 4.50 | 5.88", "'4.50' is not in results/eval.json"),
        ("instruct", "| 47.6 | 50.2 | 53.0 |", "| 47.6 | 50.2 | 54.0 |", "54.0, and the average is 53.00"),
        ("instruct", "| Average of 2 |", "| Average of 3 |", "there are 2 results in percent above it"),
        ("instruct", "| IFEval | Finnish | prompts", "| IFEval | Swedish | prompts", "is of no task"),
        ("instruct", "| +6.1 | +2.0 to +10.2 |", "| +7.1 | +2.0 to +10.2 |", "+7.1 (+2.0 to +10.2; p 0.004)"),
        ("instruct", "| +6.1 | +2.0 to +10.2 |", "| −6.1 | +2.0 to +10.2 |", "−6.1 (+2.0 to +10.2; p 0.004)"),
        ("instruct", "| 0.004 |", "| 0.001 |", "p 0.001"),
        ("instruct", "## Training", "| Task | Ours |\n|---|---|\n| GSM8K | 77.7 |\n\n## Training", "the number 77.7"),
        ("instruct", "## Training", "## Training of 77 days", "the number 77 in"),
        ("instruct", "| Apache-2.0 | English", "| MIT | English", "the licence 'MIT' is not in results/data.json"),
        ("instruct", "| 541 |", "| 514 |", "the number 514"),
        ("instruct", "value: 56.4", "value: 57.4", "is 57.4, and results/eval.json has 56.3771"),
        ("instruct", "config: fi", "config: sv", "there is no result for IFEval (sv)"),
        ("instruct", "| 80.0% | 77.5% |", "| 80.0% | 87.5% |", "Share of trained tokens 87.5% instead of 77.5%"),
        ("instruct", "| 4,000 |", "| 4,001 |", "Rows 4,001 instead of 4,000"),
        (
            "instruct",
            "| Optimiser steps | 62 | 94 |",
            "| Optimiser steps | 94 | 94 |",
            "94 is not in manifests/sft.json",
        ),
        ("instruct", "| 5e-06 | 5e-07 |", "| 5e-06 | 5e-06 |", "5e-06 is not in manifests/dpo.json"),
        ("instruct", "on 5,000 conversations", "on 5,500 conversations", "the number 5,500"),
        ("instruct", "torch 2.13.0", "torch 2.14.0", "the version 2.14.0"),
        ("instruct", "4,080 rows", "4,081 rows", "the number 4,081"),
        ("sft", "| 8 |\n| Seed", "| 16 |\n| Seed", "16 is not in manifests/sft.json"),
        (DEFAULT, "| 4 | 64 | yes |", "| 4 | 128 | yes |", "group size is 128, and results/variants.json makes it 64"),
        (DEFAULT, "8.46 (+4.1%)", "8.46 (+3.1%)", "the change of perplexity, +3.1%"),
        (DEFAULT, "8.46 (+4.1%)", "8.26 (+4.1%)", "the perplexity 8.26"),
        (DEFAULT, "5.86 GB", "4.86 GB", "size is 4.86 GB"),
        (DEFAULT, "54.9 (−1.5)", "54.9 (+1.5)", "the difference 1.5"),
        (DEFAULT, "54.9 (−1.5)", "55.9 (−1.5)", "results/eval.json has 54.8983"),
        (DEFAULT, "This variant: 4-bit GPTQ", "This variant: 8-bit GPTQ", "speaks of '8-bit'"),
        (DEFAULT, "itself has 16.06 GB", "itself has 18.06 GB", "the number 18.06"),
    ],
)
def test_a_changed_number_is_found(copied: Copied, name: str, old: str, new: str, said: str) -> None:
    assert any(said in text for text in spoil(copied(name), old, new))


def test_results_that_change_under_a_card(copied: Copied) -> None:
    folder = copied("instruct")

    def worse(values: Any) -> None:
        values["results"]["instruct"]["ifeval-en"]["prompt_level_strict_acc"]["value"] = 41.0
        values["results"]["instruct"]["truthfulqa-en"]["mc2"]["value"] = 39.0

    edit(folder / "results" / "eval.json", worse)
    found = errors(lint_card(folder))
    assert any("IFEval, Llama-Example-8B-Instruct: 56.4" in text for text in found)
    assert any("Average of 2" in text for text in found)
    assert any(".eval_results/ifeval-en.yaml" in text for text in found)
    assert any(text.startswith("metadata: IFEval (en)") for text in found)


# Licences.


def test_what_the_llama_licence_asks_for(copied: Copied, tmp_path: Path) -> None:
    folder = copied("instruct")
    assert any(
        "'Built with Llama' are not on the card" in text for text in spoil(folder, "Built with Llama", "", count=-1)
    )
    (folder / "LICENSE").unlink()
    assert "the text of the licence, LICENSE, is not in the folder" in errors(lint_card(folder))
    no_text = write_folder(inputs(license=replace(LICENSE, files=())), tmp_path / "no-text")
    assert any("llama3.1 asks for it" in text for text in errors(lint_card(no_text)))


def test_a_name_that_does_not_begin_with_llama_is_a_warning(tmp_path: Path) -> None:
    folder = write_folder(inputs(repository="lab/Example-8B-Instruct"), tmp_path / "named")
    (found,) = lint_card(folder)
    assert (found.level, "does not begin with 'Llama'" in found.text) == ("warning", True)


def test_another_licence_than_the_bases_needs_a_reason(tmp_path: Path) -> None:
    other = CardLicense(ids=("mit",), base=("apache-2.0",), files=("LICENSE",))
    found = errors(lint_card(write_folder(inputs(license=other), tmp_path / "other")))
    assert found == ["the licence is mit, that of the base apache-2.0, and the card gives no reason"]


def test_two_licences_with_both_texts(tmp_path: Path) -> None:
    both = CardLicense(ids=("wtfpl", "llama2"), base=("wtfpl", "llama2"), files=("LICENSE", "LICENSE-llama2"))
    folder = write_folder(inputs(license=both), tmp_path / "both")
    assert lint_card(folder) == []
    assert "license:\n- llama2\n- wtfpl\n" in (folder / "README.md").read_text(encoding="utf-8")


# Damage.


def test_html_is_found(copied: Copied) -> None:
    found = spoil(copied("sft"), "## Limitations", "<script>fetch('x')</script>\n\n## Limitations")
    assert any("there is HTML" in text for text in found)


def test_code_that_was_not_run(copied: Copied) -> None:
    folder = copied("sft")
    (folder / "results" / "usage.json").unlink()
    (found,) = lint_card(folder)
    assert (found.level, "nothing in the folder says" in found.text) == ("warning", True)


@pytest.mark.parametrize("name", ["results/card.json", "config.json", "recipe.yaml", "model.safetensors", "README.md"])
def test_missing_files_are_named(copied: Copied, name: str) -> None:
    folder = copied("sft")
    (folder / name).unlink()
    found = errors(lint_card(folder))
    assert found
    assert all(part in found[0] for part in (("weights",) if name.startswith("model") else (name,)))


@pytest.mark.parametrize("content", ["{", "[]", "\udcff"])
def test_damaged_files_are_named(copied: Copied, content: str) -> None:
    folder = copied("sft")
    (folder / "results" / "eval.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    (found,) = errors(lint_card(folder))
    assert found.startswith("results/eval.json: ")


@pytest.mark.parametrize("content", ["", "# Title\n", "---\n[1, 2]\n---\n", "---\na: [\n---\n"])
def test_a_card_without_metadata(copied: Copied, content: str) -> None:
    folder = copied("sft")
    (folder / "README.md").write_text(content, encoding="utf-8")
    (found,) = errors(lint_card(folder))
    assert found.startswith("README.md: ")


def test_a_giant_card_is_not_read(copied: Copied, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = copied("sft")
    with (folder / "README.md").open("r+b") as file:
        file.truncate(1 << 30)  # takes no place on the disk
    monkeypatch.setattr(check, "read_facts", lambda folder: pytest.fail("nothing is read"))
    (found,) = errors(lint_card(folder))
    assert "1,073,741,824 bytes" in found
