"""How many processes train, and starting them."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from posttrain.assets import read_launch_file
from posttrain.errors import UserError
from posttrain.recipe.schema import Launch
from posttrain.stages import Manifest, launch, run
from posttrain.stages.lock import LOCK, Lock
from tests.stages.fakes import FakeLoaded, FakeStages, loaded

_PROGRAM = Path(__file__).with_name("fakes.py")
_ROOT = _PROGRAM.parents[2]


def with_launch(output: Path, **section: object) -> FakeLoaded:
    """Return a recipe with a `launch` section."""
    recipe = loaded(output, learning_rate=0.1)
    return dataclasses.replace(recipe, recipe=dataclasses.replace(recipe.recipe, launch=Launch(**section)))  # type: ignore[arg-type]


def test_plan_follows_the_launch_and_then_the_recipe(tmp_path: Path) -> None:
    config = tmp_path / "fsdp.yaml"
    config.write_text("num_processes: 8\n")
    alone = with_launch(tmp_path).recipe
    four = with_launch(tmp_path, num_processes=4).recipe
    eight = with_launch(tmp_path, config=str(config)).recipe
    assert launch.plan(alone, {}) == launch.Plan(1)
    assert launch.plan(four, {}) == launch.Plan(4, launches=True)
    assert launch.plan(eight, {}) == launch.Plan(8, str(config), launches=True)
    assert launch.plan(four, {"RANK": "1", "WORLD_SIZE": "2"}) == launch.Plan(2)
    assert launch.plan(four, {"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2"}) == launch.Plan(2)
    assert launch.plan(four, {"ACCELERATE_MIXED_PRECISION": "no"}) == launch.Plan(1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read"),
        ("a: [", "is not YAML"),
        ("- num_processes", "holds no settings"),
        ("use_cpu: true", "states no num_processes"),
        ("", "states no num_processes"),
    ],
)
def test_bad_launch_config(tmp_path: Path, text: str | None, message: str) -> None:
    config = tmp_path / "launch.yaml"
    if text is not None:
        config.write_text(text)
    with pytest.raises(UserError, match=message):
        run(with_launch(tmp_path / "out", config=str(config)), stages=FakeStages().chain())
    assert not (tmp_path / "out").exists()


def test_a_launch_file_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "model.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="is not text in UTF-8"):
        read_launch_file(str(tmp_path / "model.yaml"))


@pytest.mark.parametrize(
    ("command", "count"),
    [
        (["python", "/bin/accelerate", "launch", "--cpu", "--num_processes", "2", "posttrain", "sft", "tiny"], 2),
        (["python", "-m", "accelerate.commands.launch", "--num_processes=3", "-m", "posttrain", "sft", "tiny"], 3),
        (["accelerate-launch", "--cpu", "--num-processes", "4", "posttrain"], 4),
        (["accelerate-launch", "--cpu", "posttrain"], None),
        (["bash", "-c", "posttrain"], None),
    ],
)
def test_processes_on_an_accelerate_command(command: list[str], count: int | None) -> None:
    assert launch.launcher_processes(command) == count


def test_accelerate_starts_what_the_command_says(tmp_path: Path) -> None:
    command = launch.launch_command(launch.Plan(2, launches=True), "sft", [])
    at = command.index("posttrain") - 1
    environment = {**os.environ, "PYTHONPATH": str(_ROOT)}
    subprocess.run([*command[:at], str(_PROGRAM), str(tmp_path)], env=environment, check=True, timeout=100)
    assert Manifest.read(tmp_path / "sft").world_size == 2
    assert {"model-0.txt", "model-1.txt"} <= Manifest.read(tmp_path / "sft").files.keys()


@pytest.mark.slow
def test_processes_that_accelerate_drops_on_a_cpu_are_found_again(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "from posttrain.recipe.schema import Recipe\n"
        "from posttrain.stages import launch\n"
        "print('plan', launch.plan(Recipe(name='x')))\n"
    )
    command = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2", str(program)]
    environment = {**os.environ, "PYTHONPATH": str(_ROOT)}
    result = subprocess.run(command, env=environment, check=True, timeout=100, stdout=subprocess.PIPE, text=True)
    assert result.stdout.splitlines() == [f"plan {launch.Plan(2, launches=True)}"]


def stand_in(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    """Have stages launched as the program of `fakes`, in one process."""

    def command(plan: launch.Plan, stage: str, rest: list[str]) -> list[str]:
        force = ["--force", stage] if "--force" in rest else []
        return [sys.executable, str(_PROGRAM), *map(str, arguments), "--from", stage, "--until", stage, *force]

    monkeypatch.setattr(launch, "launch_command", command)
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setattr(launch, "plan", lambda recipe: launch.Plan(2, launches=True))


def test_launched_stages_work_under_the_lock_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, stages = with_launch(tmp_path, num_processes=2), FakeStages()
    stand_in(monkeypatch, tmp_path)
    assert [done.action for done in run(recipe, stages=stages.chain())] == ["build", "build", "build"]
    assert stages.built == ["rows"], "the launched processes train"
    first = Manifest.read(tmp_path / "sft")
    assert [done.action for done in run(recipe, stages=stages.chain(), force=["train"])] == [
        "reuse",
        "rebuild",
        "reuse",
    ]
    assert Manifest.read(tmp_path / "sft").digest == first.digest
    assert len(list((tmp_path / ".replaced").iterdir())) == 1


def test_exit_code_of_the_launcher_is_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, tmp_path, "--refuse", "train")
    with pytest.raises(SystemExit) as caught:
        run(with_launch(tmp_path, num_processes=2), stages=FakeStages().chain())
    assert caught.value.code == 2


def test_launcher_that_builds_nothing_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, tmp_path)
    monkeypatch.setattr(launch, "launch_command", lambda plan, stage, rest: [sys.executable, "-c", ""])
    with pytest.raises(RuntimeError, match=r"sft was not built"):
        run(with_launch(tmp_path, num_processes=2), stages=FakeStages().chain())


def test_termination_is_passed_on_and_the_end_waited_for(tmp_path: Path) -> None:
    program = (
        "import signal, sys, time\n"
        f"def stop(number, frame): time.sleep(0.5); open({str(tmp_path / 'end')!r}, 'w'); sys.exit(7)\n"
        "signal.signal(signal.SIGTERM, stop); print('ready', flush=True); time.sleep(30)\n"
    )
    script = (
        f"import sys; from pathlib import Path; from posttrain.errors import Interrupted\n"
        f"from posttrain.stages import launch, lock\n"
        f"with lock.Lock(Path({str(tmp_path)!r})) as held:\n"
        f"    try: launch.run_launched([sys.executable, '-c', {program!r}], {{}}, held)\n"
        f"    except Interrupted as stopped: Path({str(tmp_path / 'end')!r}).exists() and sys.exit(stopped.signal)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(_ROOT)}
    process = subprocess.Popen([sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == signal.SIGTERM


def test_lock_outlives_an_owner_whose_child_goes_on(tmp_path: Path) -> None:
    with Lock(tmp_path) as lock:
        assert lock.descriptor is not None
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=(lock.descriptor,))
        os.close(os.dup(lock.descriptor))
    try:
        with pytest.raises(UserError, match="another posttrain run"), Lock(tmp_path):
            pass
    finally:
        child.communicate(b"\n")
    with Lock(tmp_path):
        owner = json.loads((tmp_path / LOCK).read_text())
        assert owner["pid"] == os.getpid()


def test_lock_of_a_removed_file_locks_nothing(tmp_path: Path) -> None:
    with Lock(tmp_path):
        (tmp_path / LOCK).unlink()
        with Lock(tmp_path):
            assert (tmp_path / LOCK).exists()


def test_two_threads_cannot_both_have_the_lock(tmp_path: Path) -> None:
    got: list[str] = []

    def take() -> None:
        try:
            with Lock(tmp_path):
                got.append("lock")
                time.sleep(0.3)
        except UserError:
            got.append("refused")

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == ["lock", "refused", "refused", "refused"]
