from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import yaml

from posttrain.errors import UserError
from posttrain.release.card import (
    CardLicense,
    Sibling,
    eval_results_files,
    lint_card,
    plain,
    read_weights,
    result_files,
    write_card,
)
from posttrain.release.card.lint.markdown import parse, words
from posttrain.release.card.text import at_start, code, fenced, large, signed, size
from tests.release.card.family import (
    BASE,
    DEFAULT,
    INSTRUCT,
    MODEL,
    SFT,
    TRAINING,
    inputs,
    manifest_of,
    results,
    summary,
    variants,
    write_folder,
    write_weights,
)


def metadata(card: str) -> dict[str, Any]:
    return parse(card).metadata


def section(card: str, heading: str) -> str:
    return card.partition(f"\n## {heading}")[2].partition("\n## ")[0]


def test_equal_inputs_give_equal_cards() -> None:
    for name in ("sft", "instruct", DEFAULT):
        assert write_card(inputs(name)) == write_card(inputs(name))
        assert result_files(inputs(name)) == result_files(inputs(name))


def test_metadata_of_each_kind() -> None:
    sft, instruct, variant = (metadata(write_card(inputs(name))) for name in ("sft", "instruct", DEFAULT))
    assert [head["base_model"] for head in (sft, instruct, variant)] == [BASE, SFT, INSTRUCT]
    relations = [head["base_model_relation"] for head in (sft, instruct, variant)]
    assert relations == ["finetune", "finetune", "quantized"]
    assert sft["datasets"] == ["OpenAssistant/oasst2"]
    assert instruct["datasets"] == ["OpenAssistant/oasst2", "nvidia/HelpSteer3"]
    assert variant["tags"] == ["4-bit", "conversational", "dpo", "gptq", "posttrain", "sft"]
    assert sft["language"] == ["en", "fi"]
    assert (sft["license"], sft["license_name"], sft["license_link"]) == (
        "llama3.1",
        "llama-3.1-community-license",
        "LICENSE",
    )


def test_model_index_has_every_result_and_huggingface_hub_reads_it() -> None:
    from huggingface_hub import ModelCard

    data: Any = ModelCard(write_card(inputs("instruct"))).data
    found = {
        (each.dataset_name, each.dataset_config, each.metric_type): each.metric_value for each in data.eval_results
    }
    assert found == {
        ("IFEval", "en", "prompt_level_strict_acc"): 56.4,
        ("IFEval", "en", "inst_level_strict_acc"): 66.8,
        ("IFEval", "fi", "prompt_level_strict_acc"): 51.0,
        ("IFEval", "fi", "inst_level_strict_acc"): 60.2,
        ("ARC-Challenge", "en", "acc_norm"): 56.1,
        ("TruthfulQA", "en", "mc2"): 49.9,
        ("MT-Bench", "fi", "score"): 6.31,
    }
    assert data.model_name == "Llama-Example-8B-Instruct"


def test_eval_results_are_in_the_hubs_form_for_tasks_on_hub_data_only() -> None:
    from huggingface_hub import parse_eval_result_entries

    files = eval_results_files(inputs("instruct"))
    assert list(files) == [".eval_results/ifeval-en.yaml"]
    (entry,) = parse_eval_result_entries(yaml.safe_load(files[".eval_results/ifeval-en.yaml"]))
    assert (entry.dataset_id, entry.dataset_revision, entry.value) == ("google/IFEval", "c" * 40, 56.4)
    assert "posttrain" in str(entry.notes)


def test_what_was_not_measured_is_absent() -> None:
    card = write_card(inputs("instruct", results=None))
    assert "## Evaluation" not in card
    assert "model-index" not in card
    assert "It was not evaluated" in section(card, "Limitations")
    not_this_one = results()
    del not_this_one["results"]["instruct"]
    assert "## Evaluation" not in write_card(inputs("instruct", results=not_this_one))
    bare = write_card(inputs("instruct", summary=None, weights=None, manifests={}))
    assert not {"## Training", "Share of rows", "Weights"} & set(bare.split("\n"))
    assert "| Weights |" not in bare


def test_the_sft_card_says_nothing_of_dpo() -> None:
    card = write_card(inputs("sft"))
    assert "Preference pairs" not in card
    assert "HelpSteer3" not in card
    assert "DPO" not in section(card, "Training")


def test_base_card_of_a_recipe_that_only_pretrains(tmp_path: Path) -> None:
    text = [
        {"path": "HuggingFaceFW/fineweb-2", "share": 0.7, "language": "fi", "license": "ODC-BY-1.0"},
        {"path": "code.jsonl", "share": 0.3, "language": None, "license": None},
    ]
    figures = {"0/realised_share": 0.7001, "0/trained_tokens": 7001, "0/epochs": 1.0, "1/realised_share": 0.2999}
    manifest = manifest_of(
        "cpt",
        {"model": MODEL, "cpt": {**TRAINING, "text": text, "tokens": 10000.0}},
        {"steps": 10, **figures, "1/trained_tokens": 2999, "1/epochs": 1.25},
        sources=[{"entry": "cpt.text.0", "path": "HuggingFaceFW/fineweb-2", "revision": "f" * 40}],
    )
    base = inputs(
        "sft",
        name="base",
        kind="base",
        repository="lab/Llama-Base",
        manifests={"cpt": manifest},
        siblings=(),
        results=None,
    )
    folder = write_folder(base, tmp_path / "base")
    assert lint_card(folder) == []
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "pretrained further on text" in card
    assert "| 70.0% | 7,001 | 1.00 |" in card
    assert metadata(card)["datasets"] == ["HuggingFaceFW/fineweb-2"]
    assert "apply_chat_template" not in card
    assert "It continues text." in card


def test_quantised_copy_of_a_model_of_others(tmp_path: Path) -> None:
    bloom = variants()
    bloom["of"] = "base"
    alone = inputs(
        DEFAULT,
        variants=bloom,
        manifests={},
        summary=None,
        results=None,
        siblings=(),
        repository="lab/Poro-34B-GPTQ",
        base_model="LumiOpen/Poro-34B",
        license=CardLicense(ids=("apache-2.0",), base=("apache-2.0",), files=("LICENSE",)),
        languages=("en", "fi"),
        chat=False,
        recipe={"name": "poro", "model": {"base": "LumiOpen/Poro-34B", "chat_template": "tokenizer"}},
    )
    folder = write_folder(alone, tmp_path / "poro")
    assert lint_card(folder) == []
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert metadata(card)["base_model"] == "LumiOpen/Poro-34B"
    assert "## Training" not in card
    assert "Poro-34B itself has 16.06 GB" in card


def test_a_variant_that_needs_a_kernel_gets_it_in_its_code() -> None:
    only_torch = variants()
    only_torch["variants"][0]["backends"] = {"auto": {"generates": False, "reason": "x"}, "torch": {"generates": True}}
    card = write_card(inputs(DEFAULT, variants=only_torch))
    assert 'GPTQConfig(bits=4, backend="torch")' in card
    assert "quantization_config=quantization" in card
    assert "GPTQConfig" not in write_card(inputs(DEFAULT))
    compile("\n".join(text for language, text in parse(card).code if language == "python"), "card", "exec")


def test_who_judged_and_what_is_to_be_known_of_the_answers_is_said() -> None:
    text = section(write_card(inputs("instruct")), "Evaluation")
    assert "`mt-bench-fi` was judged by `meta-llama/Llama-3.3-70B-Instruct`" in text
    assert "`ifeval-fi` leaves out the prompts with `language:response_language`" in text
    assert "Llama-Example-8B-Instruct, ifeval-fi: 3 of 100 cut off by the limit on tokens" in text
    assert "cut off" not in section(write_card(inputs("instruct", results={**results(), "notes": []})), "Evaluation")


def test_averages_are_of_one_kind_of_task_and_one_language() -> None:
    card = write_card(inputs("instruct"))
    averages = [row for table in parse(card).tables for row in table.rows if row[0].startswith("Average")]
    ours = results()["results"]["instruct"]
    mean = (ours["arc-challenge-en"]["acc_norm"]["value"] + ours["truthfulqa-en"]["mc2"]["value"]) / 2
    assert [row[:3] + row[5:6] for row in averages] == [["Average of 2", "English", "mean, %", f"{mean:.1f}"]]
    partly = results()
    del partly["results"]["base"]["truthfulqa-en"]
    assert "| Average of 2 | English | mean, % | – | 50.2 |" in write_card(inputs("instruct", results=partly))


def test_failed_variants_are_listed_with_the_reason() -> None:
    assert "`gptq-3bit-32g-actorder_True`: it generates with no backend" in section(
        write_card(inputs(DEFAULT)), "Quant"
    )


def test_a_comparison_is_always_of_this_model_less_the_other() -> None:
    turned = results()
    first = turned["comparisons"][0]
    first |= {"a": "sft", "b": "instruct", "difference": -6.0998, "interval": [-10.25, -2.0]}
    line = "| Llama-Example-8B-SFT | IFEval | English | +6.1 | +2.0 to +10.2 |"
    assert line in write_card(inputs("instruct", results=turned))
    assert "| Llama-Example-8B-Instruct | IFEval | English | −6.1 | −10.2 to −2.0 |" in write_card(inputs("sft"))


def test_a_forbidden_use_is_said() -> None:
    found = summary()
    found["sets"]["sft"]["sources"][0]["licenses"] = {"CC-BY-NC-4.0": 4080}
    card = write_card(inputs("sft", summary=found))
    assert "rows that may not be used commercially: CC-BY-NC-4.0 (4,080 rows)" in section(card, "Limitations")


HOSTILE = "x\n---\nlicense: mit\n# <img src=x onerror=alert(1)> | [a](javascript:b) `c` ${d} \u202etxt"


def test_hostile_names_stay_within_their_cells(tmp_path: Path) -> None:
    found = summary()
    source = found["sets"]["sft"]["sources"][1]
    source |= {"name": HOSTILE, "licenses": {HOSTILE: 1020}}
    source["provenance"] = {"path": HOSTILE, "revision": None, "files": [{"name": "x"}]}
    odd = results()
    odd["tasks"]["ifeval-fi"]["title"] = HOSTILE
    odd["models"][HOSTILE] = {"kind": "baseline", "source": "x", "digest": None}
    odd["results"][HOSTILE] = odd["results"]["sft"]
    changes = {
        "summary": found,
        "results": odd,
        "about": HOSTILE,
        "limitations": (HOSTILE,),
        "prompt": f"{HOSTILE}```\n",
    }
    plain_card, card = write_card(inputs("sft")), write_card(inputs("sft", **changes))
    assert parse(card).headings == parse(plain_card).headings
    assert metadata(card)["license"] == "llama3.1"
    assert "<img" not in "".join(text for _, text in parse(card).sentences).replace("&lt;img", "")
    assert [len(table.rows) for table in parse(card).tables] == [len(table.rows) for table in parse(plain_card).tables]
    assert all(len(row) == len(table.head) for table in parse(card).tables for row in table.rows)
    assert "\u202e" not in card.replace(json.dumps(HOSTILE, ensure_ascii=False)[1:-1], "")
    assert not [
        each for each in lint_card(write_folder(inputs("sft", **changes), tmp_path / "x")) if "HTML" in each.text
    ]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"repository": "lab/a\nb"}, "the repository"),
        ({"repository": 'lab/x"; import os'}, "the repository"),
        ({"repository": "../etc"}, "the repository"),
        ({"base_model": "a/b/c"}, "the base model"),
        ({"revision": "../../main"}, "is no name of a branch"),
        ({"license": CardLicense(ids=("mit\nbase_model: x",))}, "no id of a licence"),
        ({"license": CardLicense(ids=())}, "no licence is given"),
        ({"license": CardLicense(ids=("mit",), files=("../LICENSE",))}, "the licence file"),
        ({"languages": ("finnish",)}, "no ISO 639 code"),
        ({"siblings": (Sibling(name="sft", repository="<b>", kind="sft"),)}, "the repository of sft"),
    ],
)
def test_names_that_would_break_out_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        write_card(inputs("instruct", **changes))


def test_all_problems_are_reported_together() -> None:
    with pytest.raises(UserError) as caught:
        write_card(inputs("instruct", repository="a b", languages=("x",), license=CardLicense(ids=("a b",))))
    assert len(caught.value.problems) == 3


def test_plain_text_is_read_back_as_it_was() -> None:
    random.seed(3)
    for _ in range(300):
        text = "".join(random.choice("ab *_`[]()<>&|\\~$#!.-=+1\n\tä") for _ in range(random.randint(0, 20)))
        seen = words(plain(text))
        assert seen == " ".join(text.split()), (text, plain(text))
        assert "\n" not in plain(text)
    assert words(at_start(plain("# no heading"))) == "# no heading"
    assert at_start(plain("1. no list")).startswith("1\\.")
    assert code("a`b|c") == "``  a`b\\|c  ``".replace("  ", " ")
    assert fenced("```\nx", "python").startswith("````python\n")


def test_numbers_in_words() -> None:
    assert [signed(value, 1) for value in (1.26, -0.44, -0.04, 0.0)] == ["+1.3", "−0.4", "0.0", "0.0"]
    assert [size(value) for value in (20_350_000_000, 5_250_000, 1500, 12)] == ["20.35 GB", "5.2 MB", "1.5 kB", "12 B"]
    assert [large(value) for value in (8_030_000_000, 134_515_008, 820)] == ["8.03 billion", "134.5 million", "820"]


def test_weights_are_read_from_their_headers(tmp_path: Path) -> None:
    write_weights(tmp_path / "model.safetensors")
    found = read_weights(tmp_path)
    size_of_file = (tmp_path / "model.safetensors").stat().st_size
    assert (found.dtype, found.bytes, found.parameters) == ("bfloat16", size_of_file, 32)
    write_weights(tmp_path / "model.safetensors", quantised=True)
    assert read_weights(tmp_path).parameters is None
    with pytest.raises(UserError, match="no weights"):
        read_weights(tmp_path / "nothing")
    (tmp_path / "model.safetensors").write_bytes(b"\x80\x04K\x01.")
    with pytest.raises(UserError, match="not a safetensors file"):
        read_weights(tmp_path)
