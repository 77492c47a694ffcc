"""Generation over tasks: the bytes of one process, whatever the executor; servers that start, and servers that die."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("datatrove.pipeline.inference.servers")
pytest.importorskip("dill")

from posttrain.data.generate.build import Models, build
from posttrain.data.generate.cluster import Work, cluster_problems, generate
from posttrain.data.generate.run import run_rows
from posttrain.data.generate.servers import server_config
from posttrain.errors import UserError
from posttrain.recipe.schema_generate import Cluster, Respond, Rollout, Sampling, Teacher
from tests.data.generate.fake_server import FakeServer
from tests.helpers import ROOT, environment

PART = 8
_VLLM = '''#!{python}
"""Stands in for `vllm`: serves what the tests' server answers; dies once, after some requests, if told to."""
import asyncio, json, os, sys
sys.path.insert(0, {root!r})
from tests.data.generate.fake_server import FakeServer

with open(os.environ["VLLM_SEEN"], "a") as seen:
    seen.write(json.dumps([sys.argv[1:], os.environ.get("CUDA_VISIBLE_DEVICES")]) + "\\n")

async def serve():
    server = FakeServer(delay=0.02, record=False)
    await server.serve(int(sys.argv[sys.argv.index("--port") + 1]))
    print("Application startup complete", flush=True)
    if "VLLM_DIES" in os.environ and not os.path.exists(os.environ["VLLM_DIES"]):
        while sum(server.asked.values()) < 20:
            await asyncio.sleep(0.01)
        open(os.environ["VLLM_DIES"], "w").close()
        os._exit(1)
    await asyncio.Event().wait()

asyncio.run(serve())
'''


def entries_of(folder: Path, rows: int = 61) -> tuple[Rollout, ...]:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"Question {n}", "completion": "-"}) + "\n" for n in range(rows)))
    source = {"source": "generic", "path": str(path)}
    return (
        Respond(rollout="respond", name="answers", source=source, n=2),
        Respond(rollout="respond", name="again", rows_from="answers", max_rows=50, sampling=Sampling(temperature=0.0)),
    )


def work_of(folder: Path, url: str, name: str, cluster: Cluster, **teacher: Any) -> Work:
    models = Models(Teacher(**{"model": "m", "base_url": url, "max_concurrency": 16, **teacher}))
    return Work(entries_of(folder), models, 42, folder / name, folder / f"{name}-answers", cluster, PART)


def contents(folder: Path) -> dict[str, bytes]:
    found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {name: found[name] for name in sorted(found) if not name.startswith(".cluster")}


@pytest.fixture(scope="module")
def server() -> Iterator[FakeServer]:
    with FakeServer(spread=0.01) as running:
        yield running


@pytest.fixture
def whole(tmp_path: Path, server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Return what one process writes."""
    assert run_rows.__kwdefaults__ is not None
    monkeypatch.setitem(run_rows.__kwdefaults__, "part_rows", PART)
    models = Models(Teacher(model="m", base_url=server.url, max_concurrency=16))
    build(list(entries_of(tmp_path)), models, 42, tmp_path / "whole", tmp_path / "whole-answers")
    return contents(tmp_path / "whole")


@pytest.mark.parametrize(("tasks", "workers"), [(2, 2), (3, 1)])
def test_tasks_on_this_machine_write_what_one_process_does(
    tmp_path: Path, server: FakeServer, whole: dict[str, bytes], tasks: int, workers: int
) -> None:
    work = work_of(tmp_path, server.url, "spread", Cluster(tasks=tasks, workers=workers))
    summaries = generate(work)
    assert summaries is not None
    assert (summaries["answers"].rows, summaries["again"].rows) == (61, 50)
    assert contents(tmp_path / "spread") == whole
    assert not list((tmp_path / "spread").glob(".shards*"))
    assert generate(work) == summaries, "a finished run is left as it is"


def executable(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


@pytest.fixture
def vllm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a stand-in for vllm where it is looked for; return the file in which it notes how it was called."""
    executable(tmp_path / "bin" / "vllm", _VLLM.format(python=sys.executable, root=str(ROOT)))
    (tmp_path / "packages" / "vllm").mkdir(parents=True)
    (tmp_path / "packages" / "vllm" / "__init__.py").touch()
    (tmp_path / "packages" / "vllm-1.0.dist-info").mkdir()
    (tmp_path / "packages" / "vllm-1.0.dist-info" / "METADATA").write_text("Name: vllm\nVersion: 1.0\n")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'packages'}{os.pathsep}{environment()['PYTHONPATH']}")
    monkeypatch.syspath_prepend(str(tmp_path / "packages"))
    monkeypatch.setenv("VLLM_SEEN", str(tmp_path / "seen"))
    monkeypatch.setattr("datatrove.pipeline.inference.servers.compile_lock.DEFAULT_LOCK_DIR", tmp_path / "locks")
    monkeypatch.setenv("VLLM_COMPILE_LOCK_DIR", str(tmp_path / "locks"))
    return tmp_path / "seen"


@pytest.mark.slow
def test_each_task_asks_a_server_of_its_own(tmp_path: Path, whole: dict[str, bytes], vllm: Path) -> None:
    options = {"gpu-memory-utilization": 0.9, "enforce-eager": True}
    # The processes of a pool come from one that was started by another test, with other variables.
    env = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "VLLM_SEEN")}
    cluster = Cluster(tasks=2, workers=2, server="vllm", tensor_parallel=2, server_args=options, env=env)
    assert generate(work_of(tmp_path, "http://127.0.0.1:9/v1", "served", cluster)) is not None
    assert contents(tmp_path / "served") == whole
    calls = [json.loads(line) for line in vllm.read_text().splitlines()]
    assert sorted(gpus for _, gpus in calls) == ["0,1", "2,3"]
    for arguments, _ in calls:
        assert arguments[:2] == ["serve", "m"]
        assert {"--tensor-parallel-size=2", "--gpu-memory-utilization=0.9", "--enforce-eager"} < set(arguments)
        assert "--host=127.0.0.1" in arguments, "anyone who reaches the node could use the server"
        flags = [argument for argument in arguments if argument.endswith("trust-remote-code")]
        assert flags[-1] == "--no-trust-remote-code"


@pytest.mark.slow
def test_no_row_fails_because_a_server_died(
    tmp_path: Path, whole: dict[str, bytes], vllm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_DIES", str(tmp_path / "died"))
    work = work_of(tmp_path, "http://127.0.0.1:9/v1", "served", Cluster(workers=1, server="vllm"), max_concurrency=1)
    with pytest.raises(RuntimeError, match=r"vllm: .*servers"):
        generate(work)
    assert (tmp_path / "died").exists()
    assert generate(work) is not None
    assert contents(tmp_path / "served") == whole


# Slurm, whose commands are stood in for


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put stand-ins for Slurm's commands in PATH, which note how they are called in the folder returned."""
    seen = tmp_path / "slurm"
    seen.mkdir()
    submit = f'n=$(ls {seen} | wc -l)\nfor last; do :; done\ncp "$last" {seen}/script-$n\n'
    executable(
        tmp_path / "bin" / "sbatch", f'#!/bin/sh\n{submit}echo "$@" > {seen}/args-$n\necho Submitted batch job 42\n'
    )
    executable(
        tmp_path / "bin" / "scontrol",
        f'#!/bin/sh\ncase $1 in show) echo node1;; *) echo "$@" >> {seen}/scontrol;; esac\n',
    )
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    return seen


def job(work: Work, number: int) -> subprocess.Popen[bytes]:
    """Start what a job of the array runs."""
    launch = [sys.executable, "-m", "datatrove.tools.launch_pickled_pipeline", str(work.logs / "executor.pik")]
    own = {"SLURM_ARRAY_TASK_ID": str(number), "SLURM_NODELIST": "node1", "SLURM_JOB_ID": f"42{number}"}
    return subprocess.Popen(launch, env={**environment(), **own}, stderr=subprocess.DEVNULL)


def slurm_work(folder: Path, url: str, **more: Any) -> Work:
    cluster = Cluster(
        executor="slurm",
        tasks=2,
        partition="small-g",
        time="01:00:00",
        sbatch_args={"account": "project_1"},
        venv_path="/opt/env",
        env={"HF_HOME": "/scratch/a b"},
        **more,
    )
    return work_of(folder, url, "spread", cluster)


def test_jobs_are_submitted_with_what_the_recipe_says(tmp_path: Path, slurm: Path) -> None:
    assert generate(slurm_work(tmp_path, "http://127.0.0.1:9/v1", gpus=4, qos="long", workers=1, drain=120)) is None
    scripts = [path.read_text() for path in sorted(slurm.glob("script-*"))]
    (array,) = scripts
    lines = {line.strip() for line in array.splitlines()}
    for option in (
        "array=0-1%1", "partition=small-g", "time=01:00:00", "account=project_1", "gpus=4", "qos=long", "requeue",
        "signal=USR1@120", "nodes=1",
    ):  # fmt: skip
        assert f"#SBATCH --{option}" in lines, option
    assert "export HF_HOME='/scratch/a b' && source /opt/env/bin/activate" in lines
    subprocess.run(["bash", "-n"], input=array.encode(), check=True)


def test_jobs_write_what_one_process_does(
    tmp_path: Path, slurm: Path, server: FakeServer, whole: dict[str, bytes]
) -> None:
    work = slurm_work(tmp_path, server.url)
    assert generate(work) is None
    assert [job(work, number).wait(60) for number in (0, 1)] == [0, 0]
    assert generate(work) is not None
    assert contents(tmp_path / "spread") == whole


def test_a_job_near_its_end_saves_what_is_under_way_and_is_requeued(
    tmp_path: Path, slurm: Path, whole: dict[str, bytes]
) -> None:
    with FakeServer(delay=0.3, spread=0.1) as slow:
        work = slurm_work(tmp_path, slow.url)
        assert generate(work) is None
        process = job(work, 0)
        until = time.monotonic() + 60
        while len(slow.bodies) < 20:
            assert process.poll() is None
            assert time.monotonic() < until
            time.sleep(0.01)
        process.send_signal(signal.SIGUSR1)
        assert process.wait(60) == 15  # what datatrove's handler exits with
        assert (slurm / "scontrol").read_text().split() == ["requeue", "420"]
        assert not work.is_finished(0)
        assert [job(work, number).wait(60) for number in (0, 1)] == [0, 0]
        assert generate(work) is not None
        requests = [json.dumps(body, sort_keys=True) for body in slow.bodies]
        assert len(requests) == len(set(requests)), "something was asked twice"
    assert contents(tmp_path / "spread") == whole


def test_what_is_wrong_with_a_cluster_is_said_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    cluster = Cluster(executor="slurm", server="vllm", tasks=2)
    work = work_of(tmp_path, "http://127.0.0.1:9/v1", "none", cluster, engine="local")
    with pytest.raises(UserError) as caught:
        generate(work)
    keys = [problem.split(":")[0] for problem in caught.value.problems]
    assert keys == ["cluster.server", "cluster.partition", "cluster.time", "cluster.executor"]
    missing = cluster_problems(work_of(tmp_path, "http://127.0.0.1:9/v1", "none", Cluster(server="sglang", nodes=2)))
    assert [problem.split(":")[0] for problem in missing] == ["cluster.server", "cluster.nodes"]


def test_a_server_gets_the_revision_and_what_the_recipe_adds(tmp_path: Path) -> None:
    cluster = Cluster(server="sglang", tensor_parallel=4, pipeline_parallel=2, nodes=2, server_args={"host": "::"})
    config = server_config(cluster, Teacher(model="m", revision="abc"), tmp_path)
    assert config.model_kwargs == {"host": "::", "revision": "abc"}
    assert (config.tp, config.pp, config.model_max_context) == (4, 2, 8192)
    assert cluster.gpus_per_node == 4


def test_a_task_that_fails_ends_the_others(tmp_path: Path, server: FakeServer) -> None:
    with pytest.raises(UserError, match="no-such-model"):
        generate(work_of(tmp_path, server.url, "refused", Cluster(tasks=4, workers=2), model="no-such-model"))
