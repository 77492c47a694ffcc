"""Stages as jobs of a cluster: what sbatch is asked for. Slurm is a stand-in."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from posttrain.assets import asset_folder
from posttrain.cli import main
from posttrain.errors import Submitted, UserError
from posttrain.recipe import load
from posttrain.stages import slurm

Capture = pytest.CaptureFixture[str]
SCRIPTS = asset_folder("launch") / "slurm"
SHEBANG = f"#!{sys.executable}\n"
RECORDED = ("CONFIG", "PER_NODE", "POSTTRAIN")

SBATCH = f"""
import json, os, sys
from pathlib import Path
there = Path(os.environ["STAND_IN"])
asked = {{"arguments": sys.argv[1:], **{{name: os.environ.get(name) for name in {RECORDED!r}}}}}
number = 100 + len(list(there.glob("job-*")))
if any(os.environ.get("REFUSE", "no such stage") in word for word in sys.argv):
    sys.exit("sbatch: error: Batch job submission failed: Invalid account")
(there / f"job-{{number}}").write_text(json.dumps(asked))
print(f"{{number}};cluster" if "FEDERATION" in os.environ else number)
"""
SQUEUE = """
import os
from pathlib import Path
print((Path(os.environ["STAND_IN"]) / "queue").read_text())
"""


def program(folder: Path, name: str, text: str) -> None:
    """Put a program of a name into a folder."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(text)
    path.chmod(0o755)


class Cluster:
    """The stand-in: programs in PATH, the jobs that sbatch was given, and the queue that squeue shows."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.queue()

    def queue(self, *numbers: int) -> None:
        (self.folder / "queue").write_text("\n".join(map(str, numbers)))

    def jobs(self) -> list[dict[str, Any]]:
        return [json.loads(path.read_text()) for path in sorted(self.folder.glob("job-*"))]


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    folder = tmp_path / "cluster"
    program(folder, "sbatch", SHEBANG + SBATCH)
    program(folder, "squeue", SHEBANG + SQUEUE)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("STAND_IN", str(folder))
    for name in ("SLURM_JOB_ID", slurm.MARK):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return Cluster(folder)


ON_TWO_NODES = (
    "launch={num_processes: 4, slurm: {nodes: 2, gpus_per_node: 2, partition: gpu, time: 8:00:00, account: project}}",
    "launch.slurm.sbatch_args={qos: high, exclusive: true}",
    "launch.slurm.cpu={partition: small, cpus: 8}",
    "output_dir=out",
    *(f"{stage}.global_batch_size=8" for stage in ("cpt", "sft", "dpo")),
)
FEW = (*(f"data.sft.{number}.max_rows=4" for number in range(6)), *(f"data.preference.{n}.max_rows=6" for n in (0, 1)))


def options(arguments: list[str]) -> tuple[dict[str, str], str, list[str]]:
    """Return the options of an sbatch command by name, its script, and the script's own arguments."""
    at = next(index for index, word in enumerate(arguments) if not word.startswith("-"))
    pairs = [word.removeprefix("--").partition("=") for word in arguments[:at]]
    return {name: value for name, _, value in pairs}, Path(arguments[at]).name, arguments[at + 1 :]


def test_a_chain_is_submitted_each_job_after_the_one_before(cluster: Cluster, capsys: Capture) -> None:
    assert main(["run", "tiny", *ON_TWO_NODES]) == 0
    names = [stage.name for stage in slurm.chain(load("tiny").recipe)]
    printed = capsys.readouterr().out
    assert all(f"{name} {100 + number}" in printed for number, name in enumerate(names))
    jobs = cluster.jobs()
    assert len(jobs) == len(names) > 4
    measures = ("eval", "release")  # they run the model, each in one process
    trains = {stage.name: stage.trains or stage.name in measures for stage in slurm.chain(load("tiny").recipe)}
    for number, (name, job) in enumerate(zip(names, jobs, strict=True)):
        given, script, own = options(job["arguments"])
        assert own == ["tiny", *ON_TWO_NODES, "--from", name, "--until", name]
        assert given["parsable"] == ""
        assert given["account"] == "project"
        assert given["output"] == f"out/.slurm/{name}-%j.log"
        assert given.get("dependency") == (f"afterok:{99 + number}" if number else None)
        assert ("kill-on-invalid-dep" in given) == bool(number)
        assert job["POSTTRAIN"] == str(SCRIPTS.parents[1])
        if trains[name]:
            assert script == "train.sbatch"
            wanted = {"nodes": "2", "gpus-per-node": "2", "partition": "gpu", "time": "8:00:00", "qos": "high"}
            assert wanted.items() <= given.items()
            assert given["exclusive"] == ""
            assert (job["CONFIG"], job["PER_NODE"]) == ("", "2")
        else:
            assert script == "stage.sbatch"
            assert (given["partition"], given["time"], given["cpus-per-task"]) == ("small", "8:00:00", "8")
            assert not {"nodes", "gpus-per-node", "qos"} & given.keys()


def test_nothing_is_submitted_twice(cluster: Cluster, capsys: Capture) -> None:
    assert main(["run", "tiny", *ON_TWO_NODES, "--until", "cpt"]) == 0
    assert len(cluster.jobs()) == 2
    cluster.queue(101, 7)
    assert main(["run", "tiny", *ON_TWO_NODES]) == 0
    assert "in the queue already" in capsys.readouterr().out
    assert len(cluster.jobs()) == 2
    cluster.queue(7)
    assert main(["run", "tiny", *ON_TWO_NODES]) == 0
    assert len(cluster.jobs()) > 4


def test_complete_stages_are_not_submitted(cluster: Cluster, capsys: Capture) -> None:
    assert main(["data", "tiny", *ON_TWO_NODES, *FEW]) == 0
    assert cluster.jobs() == [], "one stage is built where the command is given"
    assert main(["run", "tiny", *ON_TWO_NODES, *FEW, "--until", "data"]) == 0
    assert "nothing to submit: data" in capsys.readouterr().out
    assert main(["run", "tiny", *ON_TWO_NODES, *FEW, "--until", "cpt"]) == 0
    (job,) = cluster.jobs()
    given, script, own = options(job["arguments"])
    assert (script, own[-1]) == ("train.sbatch", "cpt")
    assert "dependency" not in given


def test_what_is_built_from_a_forced_stage_is_forced_in_its_own_job(cluster: Cluster) -> None:
    assert main(["data", "tiny", *ON_TWO_NODES, *FEW]) == 0
    assert main(["run", "tiny", *ON_TWO_NODES, *FEW, "--force", "data", "--until", "tokenize-sft"]) == 0
    own = {options(job["arguments"])[2][-1]: options(job["arguments"])[2] for job in cluster.jobs()}
    assert own["data"][-4:] == ["--until", "data", "--force", "data"]
    assert "--force" not in own["tokenize-sft"], "it is not there yet, so there is nothing to force"


def test_a_command_in_a_job_builds(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    recipe = load("tiny", ON_TWO_NODES).recipe
    assert slurm.submits(recipe), "an allocation made by hand is no job of ours"
    monkeypatch.setenv(slurm.MARK, "11")
    assert slurm.submits(recipe), "the mark is that of another job"
    monkeypatch.setenv(slurm.MARK, "12")
    assert not slurm.submits(recipe)
    assert main(["run", "tiny", *ON_TWO_NODES, *FEW, "--until", "data"]) == 0
    assert cluster.jobs() == []
    assert (Path("out") / "data" / "manifest.json").is_file()
    assert not slurm.submits(load("tiny").recipe)


def test_number_of_a_federation(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDERATION", "yes")
    with pytest.raises(Submitted, match=r"data 100, cpt 101;? ?"):
        slurm.submit(load("tiny", ON_TWO_NODES), until="cpt")
    assert "--dependency=afterok:100" in cluster.jobs()[1]["arguments"]


def test_a_refusal_of_sbatch_says_what_was_submitted_before(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REFUSE", "tiny-cpt")
    with pytest.raises(UserError, match=r"cpt: sbatch refused the job: .*Invalid account; submitted before it: 100"):
        slurm.submit(load("tiny", ON_TWO_NODES))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("launch.slurm.nodes=3", r"3 x 2 devices .* are 6, and 4 processes train; set launch.num_processes=6"),
        ("launch.slurm={nodes: 3, gpus_per_node: 0}", "4 processes cannot be divided among 3 nodes"),
        ("launch.slurm.script=own.sbatch", "there is no file 'own.sbatch'; give train or lumi"),
        ("launch.slurm.sbatch_args={dependency: singleton}", "posttrain sets this itself"),
        ("data.sft.0.path=absent.jsonl", "there is no file or folder 'absent.jsonl'"),
        ("sft.global_batch_size=6", "6 is not a multiple of 4"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_submitted(cluster: Cluster, override: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        slurm.submit(load("tiny", [*ON_TWO_NODES, override]))
    assert cluster.jobs() == []
    assert not Path("out").exists()


def test_no_slurm_here(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UserError, match="there is no sbatch here; run this on a login node"):
        slurm.submit(load("tiny", ON_TWO_NODES))


def test_a_start_in_the_middle_needs_what_is_before(cluster: Cluster) -> None:
    with pytest.raises(UserError, match="--from cpt starts after it"):
        slurm.submit(load("tiny", ON_TWO_NODES), from_="cpt")
