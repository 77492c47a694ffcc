"""The commands themselves: their help, what they list, copy and print, and that they are quick to answer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import posttrain
from posttrain.assets import asset_folder
from posttrain.cli import main
from posttrain.cli.summary import figures
from posttrain.recipe import builtin_recipes, load
from tests.helpers import HEAVY, run_python

COMMANDS = (
    "run",
    "generate",
    "data",
    "tokenize",
    "cpt",
    "sft",
    "ref-logps",
    "dpo",
    "quantize",
    "eval",
    "plan",
    "check",
    "show",
    "recipes",
)
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that is made the working folder."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("RANK", "WORLD_SIZE", "ACCELERATE_MIXED_PRECISION"):
        monkeypatch.delenv(name, raising=False)
    return folder


def codes_and_imports(here: Path, *commands: list[str]) -> tuple[list[int], list[str]]:
    """Run commands in one fresh process; return their exit codes and the heavy packages that it has imported then."""
    program = (
        "import json, sys; from posttrain.cli import main; "
        f"codes = [main(command) for command in {list(commands)}]; "
        f"print(); print(json.dumps([codes, [name for name in {HEAVY} if name in sys.modules]]))"
    )
    done = run_python(["-c", program], at=here)
    assert done.returncode == 0, done.stderr
    codes, heavy = json.loads(done.stdout.splitlines()[-1])
    return codes, heavy


def test_help_of_every_command_imports_nothing_heavy(here: Path) -> None:
    commands = [["--help"], ["-h"], *([name, "--help"] for name in COMMANDS)]
    assert codes_and_imports(here, *commands) == ([0] * len(commands), [])


def test_a_recipe_error_imports_nothing_heavy(here: Path) -> None:
    commands = [
        ["run", "tiny", "sft.learning_rat=1"],
        ["sft", "tiny", "sft.global_batch_size=7", "sft.per_device_train_batch_size=2"],
        ["run", "absent"],
        ["plan", "tiny", "data.sft.0.path=absent.jsonl"],
    ]
    assert codes_and_imports(here, *commands) == ([2] * len(commands), [])
    assert list(here.iterdir()) == []


def test_plan_imports_nothing_heavy(here: Path) -> None:
    assert codes_and_imports(here, ["plan", "tiny"], ["plan", "8b-qlora", "--recipe"], ["recipes"]) == ([0] * 3, [])
    assert list(here.iterdir()) == []


def test_help_names_every_command(capsys: Capture) -> None:
    assert main(["--help"]) == 0
    printed = capsys.readouterr().out
    assert [name for name in COMMANDS if f"  {name} " not in printed] == []
    assert main(["run", "--help"]) == 0
    printed = capsys.readouterr().out
    for option in ("--from STAGE", "--until STAGE", "--force STAGE", "RECIPE", "[KEY=VALUE]..."):
        assert option in printed


def test_version(capsys: Capture) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"posttrain {posttrain.__version__}\n"


@pytest.mark.parametrize("arguments", [["run"], ["run", "tiny", "--form", "sft"], ["train", "tiny"]])
def test_a_command_that_is_not_one(capsys: Capture, here: Path, arguments: list[str]) -> None:
    assert main(arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "Usage: posttrain" in printed.err
    assert "Error: " in printed.err
    assert list(here.iterdir()) == []


def test_recipes_are_listed_with_what_they_are_for(capsys: Capture, here: Path) -> None:
    assert main(["recipes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines
    assert [line.split(maxsplit=1) for line in lines] == [[name, about] for name, about, _ in builtin_recipes()]
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("name", [name for name, _, _ in builtin_recipes()])
def test_a_recipe_is_copied_once_and_loads(capsys: Capture, here: Path, name: str) -> None:
    assert main(["recipes", name]) == 0
    copy = here / f"{name}.yaml"
    assert capsys.readouterr().out == f"copied {name} to {name}.yaml\n"
    assert copy.read_bytes() == (asset_folder("recipes") / copy.name).read_bytes()
    assert load(copy.name).recipe == load(asset_folder("recipes") / copy.name).recipe

    copy.write_text("mine", encoding="utf-8")
    assert main(["recipes", name]) == 2
    assert capsys.readouterr().err == (
        f"posttrain: error: {name}.yaml exists already; copy it away or go to another folder, nothing is overwritten\n"
    )
    assert copy.read_text(encoding="utf-8") == "mine"


def test_a_recipe_that_does_not_exist_is_not_copied(capsys: Capture, here: Path) -> None:
    assert main(["recipes", "tinny"]) == 2
    assert "did you mean tiny?" in capsys.readouterr().err
    (here / "own.yaml").write_text("name: own\n", encoding="utf-8")
    assert main(["recipes", "own.yaml"]) == 2, "a file of the user's own is no built-in recipe"
    assert "own" in capsys.readouterr().err
    assert [path.name for path in here.iterdir()] == ["own.yaml"]


def test_plan_says_what_a_run_would_do(capsys: Capture, here: Path) -> None:
    few = [f"data.sft.{number}.max_rows=4" for number in range(6)]
    few += [f"data.preference.{number}.max_rows=6" for number in range(2)]
    assert main(["plan", "tiny", *few]) == 0
    lines = capsys.readouterr().out.partition("\n\n")[0].splitlines()  # and then what the training will take
    assert [line.split()[:3] for line in lines] == [
        ["data", "build", "outputs/tiny/data"],
        ["cpt", "build", "outputs/tiny/base"],
        ["tokenize-sft", "build", "outputs/tiny/tokens-sft"],
        ["tokenize-preference", "build", "outputs/tiny/tokens-preference"],
        ["sft", "build", "outputs/tiny/sft"],
        ["ref-logps", "build", "outputs/tiny/ref_logps"],
        ["dpo", "build", "outputs/tiny/instruct"],
        ["eval", "build", "outputs/tiny/eval"],
        ["release", "build", "outputs/tiny/release"],
    ]
    assert list(here.iterdir()) == [], "plan writes nothing"

    data_only = ["cpt=null", "model.new=null", "model.base=some/model", *few]
    assert main(["data", "tiny", *data_only]) == 0  # without the model, which is nowhere
    capsys.readouterr()
    states = {}
    for extra in ([], ["--force", "data"], ["seed=7"]):
        assert main(["plan", "tiny", *data_only, *extra]) == 0
        line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("data"))
        states[" ".join(extra)] = (line.split()[1], line.rpartition("(")[2])
    assert states == {
        "": ("reuse", "it is complete)"),
        "--force data": ("rebuild", "it is forced)"),
        "seed=7": ("stale", "seed: was 42, is 7))"),
    }


def test_plan_prints_the_commands_of_a_launch(capsys: Capture, here: Path) -> None:
    assert main(["plan", "tiny", "launch={num_processes: 2, cpu: true}"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "training runs in 2 processes:" in lines
    commands = [line for line in lines if "accelerate.commands.launch" in line]
    assert len(commands) == 4
    assert commands[1].endswith("-m posttrain sft tiny 'launch={num_processes: 2, cpu: true}'")


def test_plan_prints_the_recipe_with_the_origin_of_each_value(capsys: Capture, here: Path) -> None:
    assert main(["plan", "tiny", "dpo.beta=0.3", "--recipe"]) == 0
    printed = capsys.readouterr().out
    origins = dict(line.split("  # ") for line in map(squeeze, printed.splitlines()) if "  # " in line)
    assert origins["beta: 0.3"] == "command line"
    assert origins["name: tiny"].startswith("recipes/tiny.yaml:")
    assert origins["label_smoothing: 0.0"] == "default"
    (here / "again.yaml").write_text(printed, encoding="utf-8")
    assert load("again.yaml").recipe == load("tiny", ["dpo.beta=0.3"]).recipe


def squeeze(line: str) -> str:
    """Reduce the blanks before a comment to two."""
    head, mark, tail = line.partition("  # ")
    return f"{head.strip()}{mark}{tail}"


def test_the_summary_counts_the_pairs_of_ref_logps() -> None:
    said = figures("ref-logps", {"pairs": 1200, "held_out_pairs": 30})
    assert said == "log-probabilities of 1,200 pairs to train and 30 held out"


def test_ctrl_c_says_that_the_same_command_goes_on(
    capsys: Capture, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("posttrain.recipe.load", interrupted)
    assert main(["plan", "tiny"]) == 130
    assert capsys.readouterr().err == "posttrain: interrupted; the same command goes on from what was saved\n"


def test_plan_prints_jobs_where_one_machine_has_too_few_devices(capsys: Capture, here: Path) -> None:
    assert main(["plan", "70b"]) == 0
    lines = capsys.readouterr().out.splitlines()
    jobs = lines[lines.index("training runs in 64 processes, as jobs of Slurm:") + 1 :]
    assert len(jobs) == 3
    assert "sbatch --nodes=8 --gpus-per-node=8 launch/slurm/train.sbatch 70b --from sft --until sft" in jobs[0]
    assert main(["plan", "70b", "launch.slurm={nodes: 4, partition: gpu, time: '1:00:00', gpus_per_node: 16}"]) == 0
    job = capsys.readouterr().out.splitlines()[-1]
    assert " sbatch " in job
    assert "--nodes=4" in job
    assert "--gpus-per-node=16" in job
