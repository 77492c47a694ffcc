"""Generation over many tasks with datatrove's executors and servers, on one machine or under Slurm.

A task starts its model server, works on one shard of every entry (`shards`) and keeps its answers in a file of its own.
Rows and answers go through this package's own client and writer, whose guarantees datatrove's `InferenceRunner` does
not give: rows in the order of the input, a row that fails kept as such, no answer asked for twice.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import shlex
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datatrove.executor import LocalPipelineExecutor, SlurmPipelineExecutor
from datatrove.pipeline.base import PipelineStep

from posttrain.data.generate.build import STORE, entry_problems, rollout_of
from posttrain.data.generate.engines import Models, open_client, rows_at_once
from posttrain.data.generate.parts import PART_ROWS, Refusals, RunSummary, finished
from posttrain.data.generate.progress import following
from posttrain.data.generate.run import run_rows
from posttrain.data.generate.shards import Shard, merge
from posttrain.data.generate.stop import Stop, stopping_on_signals
from posttrain.errors import UserError
from posttrain.recipe import schema_generate as schema

if TYPE_CHECKING:
    from datatrove.executor.base import PipelineExecutor


@dataclass(frozen=True)
class Work:
    """What all tasks need; it travels to them in a file, so it holds no secret.

    Attributes:
        entries: The options of the entries.
        models: What is asked.
        seed: The recipe's.
        out: Where the rows go in the end.
        answers: The folder of the answers that were had before; each task has a file there.
        cluster: How the work is spread.
        part_rows: Rows of a part.
    """

    entries: tuple[schema.Rollout, ...]
    models: Models
    seed: int
    out: Path
    answers: Path
    cluster: schema.Cluster
    part_rows: int = PART_ROWS

    @property
    def names(self) -> list[str]:
        """What the entries are called."""
        return [entry.name for entry in self.entries]

    @property
    def logs(self) -> Path:
        """Where datatrove and the servers write their logs."""
        return self.out / ".cluster"

    def shard(self, rank: int) -> Path:
        """Return the folder of a shard."""
        return self.out / f".shards-{self.cluster.tasks}" / f"{rank:05}"

    def is_finished(self, rank: int) -> bool:
        """Say whether a shard is whole."""
        return all(finished(self.shard(rank) / name) is not None for name in self.names)


def generate(work: Work) -> dict[str, RunSummary] | None:
    """Run or submit the tasks that are not finished; put the shards together once all are.

    Returns:
        What each entry came to; None where jobs have been submitted, after which the same call is made again.

    Raises:
        UserError: Something about the entries or the cluster that the user can correct.
    """
    work = replace(work, out=work.out.resolve(), answers=work.answers.resolve())
    if problems := [*cluster_problems(work), *(each for entry in work.entries for each in entry_problems(entry))]:
        raise UserError(problems)
    tasks = range(work.cluster.tasks)
    merged = all(finished(work.out / name) is not None for name in work.names)
    waiting = [] if merged else [rank for rank in tasks if not work.is_finished(rank)]
    if waiting:
        for rank in waiting:  # of an earlier recipe in the same folder
            (work.logs / "completions" / f"{rank:05}").unlink(missing_ok=True)
        executor_of(work).run()
        if not all(work.is_finished(rank) for rank in waiting):
            return None
    summaries = merge(work.names, [work.shard(rank) for rank in tasks], work.out, work.part_rows)
    shutil.rmtree(work.shard(0).parent, ignore_errors=True)
    return summaries


def cluster_problems(work: Work) -> list[str]:
    """Return what is wrong with the section, as far as it can be told before anything is started."""
    cluster, teacher = work.cluster, work.models.teacher
    problems = []
    if cluster.server != "endpoint":
        if teacher is None or teacher.engine != "endpoint":
            problems.append(f"cluster.server: {cluster.server} serves the teacher; give teacher with engine: endpoint")
        elif cluster.executor == "local" and find_spec(cluster.server) is None:
            problems.append(f"cluster.server: {cluster.server} is not installed; run `pip install {cluster.server}`")
    if cluster.executor == "slurm":
        missing = [key for key in ("partition", "time") if getattr(cluster, key) is None]
        problems += [f"cluster.{key}: must be given for executor: slurm" for key in missing]
        if shutil.which("sbatch") is None:
            problems.append("cluster.executor: slurm needs sbatch, which is not here; run this on a login node")
    elif cluster.nodes > 1:
        problems.append(f"cluster.nodes: {cluster.nodes} nodes a task need executor: slurm")
    return problems


def executor_of(work: Work) -> PipelineExecutor:
    """Return datatrove's executor for some work; its `run` runs the tasks, or submits them."""
    cluster = work.cluster
    common: dict[str, Any] = {
        "pipeline": [GenerateShard(work)],
        "tasks": cluster.tasks,
        "workers": -1 if cluster.workers is None else cluster.workers,
        "logging_dir": str(work.logs),
    }
    if cluster.executor == "local":
        return LocalPipelineExecutor(**common)
    exports = [f"export {name}={shlex.quote(str(value))}" for name, value in cluster.env.items()]
    if cluster.venv_path is not None:
        exports.append(f"source {shlex.quote(str(Path(cluster.venv_path) / 'bin' / 'activate'))}")
    return _Slurm(
        **common,
        time=cluster.time,
        partition=cluster.partition,
        qos=cluster.qos,
        nodes_per_task=cluster.nodes,
        gpus_per_task=cluster.gpus_per_node,
        cpus_per_task=cluster.cpus,
        mem_per_cpu_gb=cluster.mem_per_cpu_gb,
        job_name="posttrain-generate",
        env_command=" && ".join(exports) or "true",
        # To the step, where the signal's handler is, and not to the batch script, which would only die of it.
        sbatch_args={"signal": f"USR1@{cluster.drain}", **cluster.sbatch_args},
        requeue_signals=("SIGUSR1",),
    )


class _Slurm(SlurmPipelineExecutor):
    """datatrove's executor without its last job, which would hold a task's GPUs to add up statistics of no interest."""

    def launch_merge_stats(self) -> None:
        """Submit nothing."""


class GenerateShard(PipelineStep):
    """The work of one task: a server, and the shard of its rank."""

    name = "Generate"
    type = "posttrain"

    def __init__(self, work: Work) -> None:
        super().__init__()
        self.work = work

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> None:
        """Work on shard `rank`; called by datatrove in the task's process.

        Raises:
            RuntimeError: The server ended.
            Interrupted: A signal stopped the work, and what was under way has been saved.
            SystemExit: The same, in a process that is the task's own.
        """
        os.environ.update(self.work.cluster.env)
        if self.work.is_finished(rank):
            return
        alone = self.work.cluster.executor == "local" and self.work.cluster.workers == 1
        with stopping_on_signals() as stop, _before_requeue(stop) as requeue, _gpus(self.work):
            try:
                asyncio.run(_run(self.work, rank, stop))
            finally:
                if stop.signal == signal.SIGUSR1:
                    requeue()
                if stop.signal is not None and not alone:
                    # A worker of a pool that was told to end, in whatever state its task is: it would wait for another
                    # task, and the pool for it.
                    raise SystemExit(128 + stop.signal)


@contextmanager
def _before_requeue(stop: Stop) -> Iterator[Callable[[], Any]]:
    """Have SIGUSR1 stop the work first; give what calls datatrove's own handler, which requeues the job."""
    previous = signal.getsignal(signal.SIGUSR1)
    if not callable(previous):  # not under Slurm
        yield lambda: None
        return
    signal.signal(signal.SIGUSR1, lambda number, frame: stop.request(number))
    try:
        yield lambda: previous(signal.SIGUSR1, None)
    finally:
        signal.signal(signal.SIGUSR1, previous)


@contextmanager
def _gpus(work: Work) -> Iterator[None]:
    """Keep GPUs of this machine for a server, which no other task uses; under Slurm they are assigned already."""
    cluster = work.cluster
    if cluster.executor == "slurm" or not cluster.gpus_per_node or cluster.tasks == 1:
        yield
        return
    with _place(work.logs / "gpus", cluster.workers or cluster.tasks) as place:
        first = place * cluster.gpus_per_node
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, range(first, first + cluster.gpus_per_node)))
        yield


@contextmanager
def _place(folder: Path, places: int) -> Iterator[int]:
    """Take a free one of some numbers, until the end or the death of this process."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(places):
        with (folder / f"{number}.lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            yield number
            return
    raise RuntimeError(f"{folder}: all {places} places are taken")


async def _run(work: Work, rank: int, stop: Stop) -> None:
    from posttrain.data.generate.store import Store

    shard = Shard(rank, work.cluster.tasks, work.part_rows)
    out = work.shard(rank)
    out.mkdir(parents=True, exist_ok=True)
    async with AsyncExitStack() as stack:
        models, cluster = work.models, work.cluster
        if cluster.server != "endpoint":
            from posttrain.data.generate.servers import served

            assert models.teacher is not None, "cluster_problems lets no other through"
            server = served(cluster, models.teacher, rank, work.logs / "servers", stop)
            base_url = await stack.enter_async_context(server)
            if base_url is None:  # another node of this task asks
                return
            models = replace(models, teacher=replace(models.teacher, base_url=base_url))
        store = stack.enter_context(Store(work.answers / f"{work.cluster.tasks:05}-{rank:05}-{STORE}"))
        left = [entry for entry in work.entries if finished(out / entry.name) is None]
        client = await open_client(left, models, work.seed, store, stack, stop)
        earlier: dict[str, Path] = {}
        for entry in work.entries:
            folder = out / entry.name
            folder.mkdir(parents=True, exist_ok=True)
            with (
                Refusals(folder) if rank == 0 else nullcontext() as refused,
                following(f"{entry.name}, shard {rank}", client.stats.snapshot) as progress,
            ):
                await run_rows(
                    shard.rows(entry, earlier, refused),
                    shard.rollout(rollout_of(entry, models, work.seed)),
                    client,
                    folder,
                    total=shard.total(entry, earlier),
                    concurrency=rows_at_once(models),
                    part_rows=work.part_rows,
                    progress=progress,
                    stop=stop,
                    refused=refused,
                )
            earlier[entry.name] = folder
