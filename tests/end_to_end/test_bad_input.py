"""Everything that a user can get wrong: one line for each problem, exit code 2, and nothing written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from posttrain.cli import main
from posttrain.stages import Manifest
from tests.helpers import SIZES, run_python, snapshot, start

STAGES = "data, tokenize-sft, tokenize-preference, sft, ref-logps, dpo"
RECIPE = """\
name: mine
model:
  base: {checkpoint}
  dtype: float32
  chat_template: llama-3.1
data:
  sft:
    - source: generic
      path: chats.jsonl
  preference:
    - source: generic
      path: pairs.jsonl
sft:
  global_batch_size: 4
  per_device_train_batch_size: 2
  max_length: 128
dpo:
  global_batch_size: 4
  max_length: 128
launch: {{cpu: true}}
"""

Refused = Callable[..., list[str]]


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture
def mine(here: Path, checkpoint: Path) -> Path:
    """A recipe in order, with rows for both sets, in the working folder."""
    turns = [[{"role": "user", "content": f"{n}?"}, {"role": "assistant", "content": f"It is {n}."}] for n in range(12)]
    write_rows(here / "chats.jsonl", [{"messages": messages} for messages in turns])
    write_rows(here / "pairs.jsonl", [{"prompt": f"{n}?", "chosen": f"{n}.", "rejected": "No."} for n in range(12)])
    recipe = here / "mine.yaml"
    recipe.write_text(RECIPE.format(checkpoint=checkpoint), encoding="utf-8")
    return recipe


@pytest.fixture
def refused(mine: Path, capsys: pytest.CaptureFixture[str]) -> Refused:
    """Give a command that must be refused, with nothing written, and return its problems."""

    def refused(*arguments: str, command: str = "run", recipe: str = "mine.yaml") -> list[str]:
        before = snapshot(mine.parent)
        capsys.readouterr()
        code = main([command, recipe, *arguments])
        printed = capsys.readouterr()
        assert code == 2, printed
        assert "Traceback" not in printed.out + printed.err
        lines = printed.err.splitlines()
        assert lines, printed
        assert [line for line in lines if not line.startswith("posttrain: error: ")] == []
        assert snapshot(mine.parent) == before
        return [line.removeprefix("posttrain: error: ") for line in lines]

    return refused


def edit(recipe: Path, old: str, new: str) -> None:
    text = recipe.read_text(encoding="utf-8")
    assert text.count(old) == 1
    recipe.write_text(text.replace(old, new), encoding="utf-8")


def test_the_recipe_that_the_others_spoil_is_in_order(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "mine.yaml", "sft.max_steps=1", "dpo.max_steps=1"]) == 0
    assert capsys.readouterr().err == ""
    assert {path.name for path in (mine.parent / "outputs/mine").glob("[!.]*")} == {
        "data",
        "tokens-sft",
        "tokens-preference",
        "sft",
        "ref_logps",
        "instruct",
    }


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("dpo:", "dop:", "mine.yaml:17: dop: unknown key; did you mean dpo?"),
        ("  dtype", "  dytpe", "mine.yaml:4: model.dytpe: unknown key; did you mean dtype?"),
        ("      path: chats", "      paht: chats", "mine.yaml:9: data.sft.0.paht: unknown key; did you mean path?"),
        (
            "  per_device_train_batch_size: 2",
            "  lora: {rank: 4, aplha: 2}",
            "mine.yaml:15: sft.lora.aplha: unknown key; did you mean alpha?",
        ),
        (
            "  per_device_train_batch_size: 2",
            "  trainer: {neftune_noise_alfa: 5}",
            "mine.yaml:15: sft.trainer.neftune_noise_alfa: not a field of SFTConfig; did you mean neftune_noise_alpha?",
        ),
    ],
)
def test_a_misspelt_key_at_any_depth(mine: Path, refused: Refused, old: str, new: str, problem: str) -> None:
    edit(mine, old, new)
    assert problem in refused()


def test_a_misspelt_key_on_the_command_line(refused: Refused) -> None:
    (problem,) = refused("sft.learning_rat=1e-5")
    assert problem == "command line: sft.learning_rat: unknown key; did you mean learning_rate?"


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("sft.global_batch_size=many", "sft.global_batch_size: must be a whole number, not 'many' (text)"),
        ("sft.lora=16", "sft.lora: must be a mapping of keys to values, not 16 (a whole number)"),
        ("model.dtype=fp16", "model.dtype: must be one of float32, bfloat16, float16, not 'fp16' (text)"),
        ("data.sft=chats.jsonl", "data.sft: must be a list, not 'chats.jsonl' (text)"),
    ],
)
def test_a_wrong_type(refused: Refused, override: str, problem: str) -> None:
    (found,) = refused(override)
    assert found == f"command line: {problem}"


def test_a_missing_recipe(refused: Refused) -> None:
    (problem,) = refused(recipe="absent.yaml")
    assert problem.startswith("absent.yaml: no such file, and no built-in recipe of that name")
    (problem,) = refused(recipe="tiney")
    assert "did you mean tiny?" in problem


def test_a_missing_data_file(refused: Refused) -> None:
    (problem,) = refused("data.sft.0.path=chat.jsonl")
    assert problem == "data.sft.0.path: there is no file or folder 'chat.jsonl'; correct the path"
    assert refused("data.sft.0.path=chat.jsonl", command="plan") == [problem]


@pytest.mark.parametrize("folder", ["./absent", "/absent/model"])
def test_a_missing_model(refused: Refused, folder: str) -> None:
    (problem,) = refused(f"model.base={folder}")
    assert problem == f"model.base: there is no file or folder '{folder}'; correct the path"


def test_a_folder_without_a_model(here: Path, refused: Refused) -> None:
    (here / "empty").mkdir()
    (problem,) = refused("model.base=empty")
    assert problem == "model.base: empty holds no model: there is no config.json in it"


def test_a_dataset_of_no_known_shape(mine: Path, refused: Refused) -> None:
    write_rows(mine.parent / "chats.jsonl", [{"query": "1?", "answer": "1."}])
    (problem,) = refused()
    assert problem.startswith("data.sft.0.path: chats.jsonl: has none of the known shapes; its columns are query, ")
    assert "instruction+output" in problem
    assert "rename the columns" in problem


def test_datasets_of_no_known_shape_are_reported_together(mine: Path, refused: Refused) -> None:
    for name in ("chats", "pairs"):
        write_rows(mine.parent / f"{name}.jsonl", [{"query": "1?", "answer": "1."}])
    problems = refused()
    assert [problem.partition(": ")[0] for problem in problems] == ["data.sft.0.path", "data.preference.0.path"]


def test_a_template_without_markers(refused: Refused) -> None:
    (problem,) = refused("model.chat_template=tokenizer")
    assert problem.startswith("sft.loss_on=assistant: the tokenizer's own chat template has no {% generation %}")
    assert "set model.chat_template=llama-3.1" in problem
    assert "sft.loss_on=all" in problem


def test_a_template_without_markers_that_is_a_file(here: Path, refused: Refused) -> None:
    (here / "my.jinja").write_text("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}")
    (problem,) = refused("model.chat_template=my.jinja")
    assert problem.startswith("sft.loss_on=assistant: the chat template my.jinja has no {% generation %}")


def test_an_embedding_smaller_than_the_tokenizer(here: Path, checkpoint: Path, refused: Refused) -> None:
    from transformers import AutoTokenizer

    shutil.copytree(checkpoint, here / "swollen")
    tokenizer = AutoTokenizer.from_pretrained(here / "swollen")
    tokenizer.add_tokens([f"<extra_{n}>" for n in range(100)])
    tokenizer.save_pretrained(here / "swollen")
    (problem,) = refused("model.base=swollen")
    assert problem.startswith(
        f"model.base: the embedding of swollen has {SIZES.vocab_size} rows, and its tokenizer {len(tokenizer)} tokens"
    )
    assert "model.tokenizer" in problem


def test_no_row_has_an_assistant_turn(mine: Path, refused: Refused) -> None:
    write_rows(mine.parent / "chats.jsonl", [{"messages": [{"role": "user", "content": f"{n}?"}]} for n in range(3)])
    (problem,) = refused()
    assert problem == ("data.sft.0.path: chats.jsonl: none of its 3 rows can be used: no assistant turn (3)")


def test_one_row_without_an_assistant_turn_goes_to_the_rejected(mine: Path) -> None:
    bad = {"messages": [{"role": "user", "content": "Anybody there?"}]}
    with (mine.parent / "chats.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(bad) + "\n")
    assert main(["data", "mine.yaml"]) == 0
    data = mine.parent / "outputs/mine/data"
    (row,) = pyarrow.parquet.read_table(data / "sft/rejected.parquet").to_pylist()
    assert (row["step"], row["reason"]) == ("convert", "no assistant turn")
    assert json.loads(row["record"]) == bad
    metrics = Manifest.read(data).metrics
    assert metrics["sft/train"] + metrics["sft/validation"] == 12
    assert metrics["sft/rejected"] == 1


def test_an_output_folder_from_another_recipe(mine: Path, refused: Refused) -> None:
    assert main(["data", "mine.yaml", "output_dir=out"]) == 0
    problems = refused("output_dir=out", "seed=7")
    assert problems[0] == "data: out/data was made from something else (seed: was 42, is 7)"
    assert problems[1].startswith("choose another folder with output_dir=..., or rebuild with --force data")
    assert len(problems) == 2


def test_a_file_that_changed_since(mine: Path, refused: Refused) -> None:
    assert main(["data", "mine.yaml", "output_dir=out"]) == 0
    with (mine.parent / "chats.jsonl").open("a", encoding="utf-8") as file:
        file.write("\n")
    problem = refused("output_dir=out")[0]
    assert "data.sft.0.path" in problem
    assert "chats.jsonl" in problem


def test_a_world_size_that_does_not_divide_the_batch(refused: Refused) -> None:
    problems = refused("launch.num_processes=3")
    assert len(problems) == 2
    assert problems[0].startswith("sft.global_batch_size: 4 is not a multiple of 6 (per_device_train_batch_size 2 x 3")
    assert problems[1].startswith("dpo.global_batch_size: 4 is not a multiple of 3 ")
    assert all("change the number of processes" in problem for problem in problems)


def test_a_launched_world_size_that_does_not_divide_the_batch(
    mine: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("RANK", "0")
    assert "is not a multiple of 6" in refused(command="sft")[0]
    before = snapshot(mine.parent)
    monkeypatch.setenv("RANK", "2")
    assert main(["sft", "mine.yaml"]) == 2
    assert capsys.readouterr() == ("", ""), "the first process speaks for all"
    assert snapshot(mine.parent) == before


def test_an_unknown_tracker(refused: Refused) -> None:
    (problem,) = refused("report_to=[tensorbord]")
    assert problem == "report_to: there is no tracker 'tensorbord'; give any of tensorboard, wandb, trackio"


@pytest.mark.parametrize("option", ["--from", "--until", "--force"])
def test_an_unknown_stage(refused: Refused, option: str) -> None:
    (problem,) = refused(option, "stf")
    assert problem == f"{option} stf: the recipe has no such stage, only {STAGES}; did you mean sft?"


def test_a_range_of_stages_that_is_empty(refused: Refused) -> None:
    (problem,) = refused("--from", "dpo", "--until", "data")
    assert problem == f"--from dpo comes after --until data; the order is {STAGES}"


def test_a_stage_whose_input_is_not_built(refused: Refused) -> None:
    problems = refused("--from", "dpo")
    assert [problem.partition(":")[0] for problem in problems] == STAGES.split(", ")[:-1]
    assert problems[-1].endswith("build it with posttrain run mine.yaml --until ref-logps")


def test_a_folder_in_the_way(mine: Path, refused: Refused) -> None:
    (mine.parent / "out/sft").mkdir(parents=True)
    (mine.parent / "out/sft/notes.txt").write_text("mine")
    (problem,) = refused("output_dir=out")
    assert problem == "sft: out/sft has no manifest.json, so it is not a finished stage; move it away"


@pytest.mark.parametrize("output", ["notes.txt", "notes.txt/below"])
def test_an_output_folder_that_is_a_file(mine: Path, refused: Refused, output: str) -> None:
    (mine.parent / "notes.txt").write_text("mine")
    (problem,) = refused(f"output_dir={output}")
    assert "notes.txt" in problem
    assert "output_dir" in problem


def test_a_file_in_the_way_of_a_stage(mine: Path, refused: Refused) -> None:
    (mine.parent / "out").mkdir()
    (mine.parent / "out/sft").write_text("mine")
    (problem,) = refused("output_dir=out")
    assert problem.startswith("sft: out/sft ")
    assert "move it away" in problem


def test_several_problems_of_a_recipe_at_once(mine: Path, refused: Refused) -> None:
    edit(mine, "name: mine", "name: mine\nsede: 3")
    edit(mine, "max_length: 128\ndpo:", "max_length: long\n  packing: bdf\ndpo:")
    problems = refused("model.dtype=fp8", "model.new={}")
    assert sorted(problem.split(": ")[:2] for problem in problems) == [
        ["command line", "model.dtype"],
        ["command line", "model.new"],
        ["command line", "model.new"],
        ["mine.yaml:17", "sft.max_length"],
        ["mine.yaml:18", "sft.packing"],
        ["mine.yaml:2", "sede"],
    ]


def test_several_problems_of_the_surroundings_at_once(refused: Refused) -> None:
    problems = refused(
        "data.sft.0.path=absent.jsonl",
        "data.preference.0.path=builtin:samples/absent.jsonl",
        "report_to=[mlflow]",
        "sft.global_batch_size=3",
        "model.chat_template=tokenizer",
    )
    assert [problem.partition(":")[0] for problem in problems] == [
        "data.sft.0.path",
        "data.preference.0.path",
        "sft.loss_on=assistant",
        "sft.global_batch_size",
        "report_to",
    ]


def test_exit_code_and_output_of_the_process(mine: Path) -> None:
    before = snapshot(mine.parent)
    done = run_python(["-m", "posttrain", "run", mine.name, "sft.max_lenght=3", "dpo.beta=warm"], at=mine.parent)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [
        "posttrain: error: command line: sft.max_lenght: unknown key; did you mean max_length?",
        "posttrain: error: command line: dpo.beta: must be a number, not 'warm' (text)",
    ]
    assert snapshot(mine.parent) == before


def test_exit_code_of_the_process_where_a_stage_refuses(mine: Path) -> None:
    write_rows(mine.parent / "chats.jsonl", [{"query": "1?", "answer": "1."}])
    before = snapshot(mine.parent)
    process = start(["run", mine.name], at=mine.parent)
    _, errors = process.communicate(timeout=100)
    assert process.returncode == 2
    assert errors.startswith("posttrain: error: data.sft.0.path: chats.jsonl: has none of the known shapes")
    assert len(errors.splitlines()) == 1
    assert snapshot(mine.parent) == before
