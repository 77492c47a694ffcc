"""The files under `launch/`: accelerate reads its configurations as they are meant, and the job scripts do their work.

Of Slurm there are stand-ins: a job script is run as it stands, with programs in PATH that do what srun, scontrol and
the launcher would, and write down how they were called.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from posttrain.assets import asset_folder
from tests.helpers import environment

LAUNCH = asset_folder("launch")
SCRIPTS = sorted((LAUNCH / "slurm").glob("*.sbatch"))
CONFIGS = sorted((LAUNCH / "accelerate").glob("*.yaml"))
# A line in one piece: programs of two nodes print at once.
SHEBANG = (
    f"#!{sys.executable}\nimport os\ndef say(*words): os.write(1, (' '.join(map(str, words)) + chr(10)).encode())\n"
)
# One task a node, each in a process group of its own; signals go to the groups, as srun's do.
SRUN = """
import os, signal, subprocess, sys
words = sys.argv[1:]
say("srun", *(word for word in words if word.startswith("--")))
while words[0].startswith("--"):
    words.pop(0)
nodes = int(os.environ["SLURM_JOB_NUM_NODES"])
tasks = [subprocess.Popen(words, env={**os.environ, "SLURM_NODEID": str(n)}, process_group=0) for n in range(nodes)]
for number in (signal.SIGUSR1, signal.SIGTERM):
    signal.signal(number, lambda number, frame: [os.killpg(task.pid, number) for task in tasks])
sys.exit(max(abs(task.wait()) for task in tasks))
"""
SCONTROL = """
import sys
say("node1\\nnode2" if sys.argv[1] == "show" else " ".join(["scontrol", *sys.argv[1:]]))
"""
# A launcher that dies of any signal, with a process that saves and ends in order at SIGTERM.
ACCELERATE = """
import json, os, subprocess, sys
say(json.dumps({"node": os.environ["SLURM_NODEID"], "mark": os.environ.get("POSTTRAIN_SLURM_JOB"),
                 "words": sys.argv[1:]}))
if "WORK" in os.environ:
    command = ["bash", "-c", os.environ["WORK"]]
elif "--no_python" in sys.argv:
    command = sys.argv[sys.argv.index("--no_python") + 1:]
else:
    command = [sys.argv[sys.argv.index("-m") + 1], *sys.argv[sys.argv.index("-m") + 2:]]
sys.exit(subprocess.run(command, env={**os.environ, "LOCAL_RANK": "1"}).returncode)
"""
POSTTRAIN = """
import os, sys
say("posttrain", *sys.argv[1:])
"""
SINGULARITY = """
import os, sys
os.execvp(sys.argv[4], sys.argv[4:])
"""
TASKSET = """
import os, sys
say("taskset", sys.argv[1:3])
os.execvp(sys.argv[3], sys.argv[3:])
"""
SAVES = "trap 'echo saved by $SLURM_NODEID; exit 0' TERM; echo training; while :; do sleep 0.1; done"


@pytest.fixture
def job(tmp_path: Path) -> dict[str, str]:
    """The environment of a job on two nodes of four GPUs, with the stand-ins in PATH."""
    programs = {
        "srun": SRUN,
        "scontrol": SCONTROL,
        "accelerate": ACCELERATE,
        "posttrain": POSTTRAIN,
        "singularity": SINGULARITY,
        "taskset": TASKSET,
    }
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, text in programs.items():
        (folder / name).write_text(SHEBANG + text)
        (folder / name).chmod(0o755)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "CONFIG", "NCCL"))}
    return kept | {
        "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}",
        "SLURM_JOB_ID": "40007",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_JOB_NODELIST": "node[1-2]",
        "SLURM_GPUS_ON_NODE": "4",
        "SLURM_SUBMIT_DIR": str(LAUNCH.parent),
        "CONTAINER": "image.sif",
    }


def start(name: str, environment: dict[str, str], *arguments: str) -> subprocess.Popen[str]:
    """Start a job script."""
    command = ["bash", str(LAUNCH / "slurm" / name), *arguments]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def run(name: str, environment: dict[str, str], *arguments: str) -> tuple[int, str]:
    """Run a job script to its end; return its exit code and what it printed."""
    process = start(name, environment, *arguments)
    printed, _ = process.communicate(timeout=60)
    return process.returncode, printed


def option(words: list[str], name: str) -> str:
    """Return the value of a launcher's option."""
    return words[words.index(name) + 1]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_job_scripts_are_valid_and_name_nobody(script: Path) -> None:
    subprocess.run(["bash", "-n", str(script)], check=True)
    text = script.read_text(encoding="utf-8")
    found = dict(re.findall(r"^#SBATCH --([a-z-]+)(?:=(\S+))?$", text, flags=re.MULTILINE))
    assert {"requeue", "signal", "time", "output", "open-mode"} <= found.keys()
    target, number, seconds = re.fullmatch(r"(B:)(USR1)@(\d+)", found["signal"]).groups()  # type: ignore[union-attr]
    assert (target, number) == ("B:", "USR1")
    assert int(seconds) >= 120
    assert "account" not in found
    assert not re.search(r"/(home|users|scratch|projappl|project)[/_]", text)
    assert len(re.findall(r"^#SBATCH", text, flags=re.MULTILINE)) == len(found)


@pytest.mark.parametrize("script", ["train.sbatch", "lumi.sbatch"])
def test_one_launcher_a_node_with_one_rendezvous(job: dict[str, str], script: str) -> None:
    code, printed = run(script, job | {"PER_NODE": "4"}, "recipes/70b.yaml", "--from", "sft", "sft.max_length=64")
    assert code == 0, printed
    calls = [json.loads(line) for line in printed.splitlines() if line.startswith("{")]
    assert sorted(call["node"] for call in calls) == ["0", "1"]
    for call in calls:
        words = call["words"]
        assert words[0] == "launch"
        assert option(words, "--num_processes") == "8"
        assert option(words, "--num_machines") == "2"
        assert option(words, "--machine_rank") == call["node"]
        assert option(words, "--main_process_ip") == "node1"
        assert option(words, "--main_process_port") == str(20000 + 40007 % 20000)
        assert option(words, "--rdzv_backend") == "c10d"
        assert option(words, "--config_file") == str(LAUNCH / "accelerate" / "fsdp2.yaml")
        assert call["mark"] == "40007"
    asked = [line for line in printed.splitlines() if line.startswith("posttrain ")]
    assert len(asked) == 2
    assert all("run recipes/70b.yaml --from sft sft.max_length=64" in line for line in asked)


def test_each_die_of_lumi_has_its_own_cores(job: dict[str, str]) -> None:
    code, printed = run("lumi.sbatch", job, "recipes/70b.yaml")
    assert code == 0, printed
    assert printed.count("taskset ['--cpu-list', '57-63']") == 2  # of local rank 1
    text = (LAUNCH / "slurm" / "lumi.sbatch").read_text(encoding="utf-8")
    groups = re.search(r"cores=\(([^)]*)\)", text)
    assert groups is not None
    cores = [set(range(int(a), int(b) + 1)) for a, b in (group.split("-") for group in groups[1].split())]
    assert len(cores) == 8
    assert set.union(*cores) == set(range(64)) - set(range(0, 64, 8)), "the first of each eight is the system's"


def test_without_a_configuration_it_is_data_parallel(job: dict[str, str]) -> None:
    code, printed = run("train.sbatch", job | {"CONFIG": ""}, "tiny")
    assert code == 0, printed
    words = json.loads(next(line for line in printed.splitlines() if line.startswith("{")))["words"]
    assert "--multi_gpu" in words
    assert "--config_file" not in words


def test_one_process_needs_no_launcher(job: dict[str, str]) -> None:
    code, printed = run("train.sbatch", job | {"SLURM_JOB_NUM_NODES": "1", "PER_NODE": "1"}, "tiny")
    assert code == 0, printed
    assert "posttrain run tiny" in printed
    assert "num_processes" not in printed


@pytest.mark.parametrize("script", ["train.sbatch", "lumi.sbatch"])
@pytest.mark.parametrize(("number", "requeued"), [(signal.SIGUSR1, True), (signal.SIGTERM, False)])
def test_a_signal_reaches_those_that_train_and_not_the_launcher(
    job: dict[str, str], script: str, number: signal.Signals, requeued: bool
) -> None:
    process = start(script, job | {"WORK": SAVES}, "recipes/70b.yaml")
    assert process.stdout is not None
    trains = 0
    while trains < 2:
        line = process.stdout.readline()
        assert line, "it ended before it trained"
        trains += line == "training\n"
    time.sleep(0.2)
    process.send_signal(number)  # to the script alone, as `--signal=B:` does
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == 0, printed
    assert sorted(re.findall(r"saved by (\d)", printed)) == ["0", "1"]
    assert ("scontrol requeue 40007" in printed) == requeued


@pytest.mark.slow
def test_a_job_near_its_end_saves_and_goes_back_into_the_queue(job: dict[str, str], tmp_path: Path) -> None:
    bin_folder = Path(job["PATH"].partition(os.pathsep)[0])
    (bin_folder / "accelerate").unlink()  # the real one
    python = f"exec {sys.executable} -m"
    (bin_folder / "accelerate").write_text(f'#!/bin/bash\n{python} accelerate.commands.accelerate_cli "$@"\n')
    (bin_folder / "accelerate").chmod(0o755)
    (bin_folder / "posttrain").write_text(f'#!/bin/bash\n{python} posttrain "$@"\n')
    sizes = "model.new={vocab_size: 320, hidden_size: 64, intermediate_size: 128, num_hidden_layers: 2}"
    few = [f"data.sft.{number}.max_rows=4" for number in range(6)] + ["cpt.max_length=128", "cpt.save_steps=10000"]
    recipe = ["tiny", f"output_dir={tmp_path / 'out'}", "launch.cpu=true", sizes, *few]
    job |= {"PYTHONPATH": environment()["PYTHONPATH"]}
    assert run("stage.sbatch", job, *recipe, "--until", "data")[0] == 0
    config = str(LAUNCH / "accelerate" / "cpu.yaml")
    settings = job | {"CONFIG": config, "PER_NODE": "2", "SLURM_JOB_NUM_NODES": "1"}
    process = start("train.sbatch", settings, *recipe, "--from", "cpt", "--until", "cpt")
    assert process.stdout is not None
    lines: list[str] = []
    while not any("weights trained" in line for line in lines):
        lines.append(process.stdout.readline())
        assert lines[-1], "".join(lines)
    process.send_signal(signal.SIGUSR1)
    printed, _ = process.communicate(timeout=100)
    assert process.returncode == 0, printed
    assert "and saved; the same command goes on from there" in printed
    assert "scontrol requeue 40007" in printed
    assert len(list((tmp_path / "out" / ".building").glob("base-*/.work/checkpoint-*/complete"))) == 1


def test_failure_is_the_exit_code_of_the_job(job: dict[str, str]) -> None:
    code, printed = run("train.sbatch", job | {"WORK": "exit 3"}, "recipes/70b.yaml")
    assert code == 3, printed
    assert "requeue" not in printed


def test_a_stage_without_gpus(job: dict[str, str]) -> None:
    code, printed = run("stage.sbatch", job, "recipes/70b.yaml", "--until", "data")
    assert code == 0, printed
    assert "posttrain run recipes/70b.yaml --until data" in printed
    assert run("stage.sbatch", job)[0] == 2


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_accelerate_reads_its_configurations(config: Path) -> None:
    from accelerate.commands.config.config_args import load_config_from_file
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser

    loaded = load_config_from_file(str(config))
    assert loaded.num_machines == 1
    assert loaded.main_process_port in (None, 0)
    parser = launch_command_parser()
    known = {action.dest for action in parser._actions}
    for section in (loaded.fsdp_config, loaded.deepspeed_config):
        assert section.keys() <= known, "accelerate would not read the others"
    words = ["--config_file", str(config), "--num_processes", "16", "train.py"]
    arguments, _, _ = _validate_launch_command(parser.parse_args(words))
    assert arguments.num_processes == 16
    assert arguments.mixed_precision == ("no" if "cpu" in config.stem else "bf16")


def test_fsdp2_is_what_torch_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils import FullyShardedDataParallelPlugin, prepare_multi_gpu_env
    from torch.distributed.fsdp.wrap import transformer_auto_wrap_policy

    words = ["--config_file", str(LAUNCH / "accelerate" / "fsdp2.yaml"), "train.py"]
    arguments, _, _ = _validate_launch_command(launch_command_parser().parse_args(words))
    assert arguments.use_fsdp
    for name, value in prepare_multi_gpu_env(arguments).items():
        if name.startswith(("FSDP_", "ACCELERATE_")):
            monkeypatch.setenv(name, value)
    plugin = FullyShardedDataParallelPlugin()
    assert plugin.fsdp_version == 2
    assert plugin.reshard_after_forward is True
    assert plugin.auto_wrap_policy is transformer_auto_wrap_policy
    assert plugin.transformer_cls_names_to_wrap is None, "transformers knows the class of each model's layers"
    assert plugin.state_dict_type.name == "SHARDED_STATE_DICT"
    assert plugin.cpu_ram_efficient_loading is True
    assert plugin.activation_checkpointing is False
    assert os.environ["ACCELERATE_MIXED_PRECISION"] == "bf16"


def test_zero3_is_what_deepspeed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils import DeepSpeedPlugin
    from accelerate.utils.launch import prepare_deepspeed_cmd_env

    words = ["--config_file", str(LAUNCH / "accelerate" / "zero3.yaml"), "--num_machines", "2", "--num_processes", "16"]
    words += ["--main_process_ip", "node1", "--main_process_port", "29555", "--machine_rank", "1", "train.py"]
    arguments, defaults, _ = _validate_launch_command(launch_command_parser().parse_args(words))
    assert arguments.use_deepspeed
    arguments.deepspeed_fields_from_accelerate_config = ",".join(defaults.deepspeed_config)
    command, environment = prepare_deepspeed_cmd_env(arguments)
    assert command is None, "each node runs torch's own launcher; a command would be that of pdsh"
    assert (arguments.nproc_per_node, arguments.nnodes) == ("8", "2")
    for name, value in environment.items():
        if name.startswith("ACCELERATE_"):
            monkeypatch.setenv(name, value)
    plugin = DeepSpeedPlugin()
    assert plugin.zero_stage == 3
    assert plugin.zero3_save_16bit_model is True
    assert plugin.zero3_init_flag is True
    assert plugin.gradient_accumulation_steps == plugin.gradient_clipping == "auto"
    assert plugin.offload_optimizer_device == plugin.offload_param_device == "none"
