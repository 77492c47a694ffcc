"""The model server of a task, started, watched and ended by datatrove's classes for vLLM and SGLang.

Its `EndpointServer` is not used: what is served already is asked by this package's own client, with its key.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from posttrain.data.generate.stop import Stop
from posttrain.errors import Interrupted, UserError
from posttrain.recipe.schema_generate import Cluster, Teacher

_LOOK = 1.0  # seconds between looks whether the server is alive


@asynccontextmanager
async def served(cluster: Cluster, teacher: Teacher, rank: int, logs: Path, stop: Stop) -> AsyncIterator[str | None]:
    """Start the server of a task and give its `base_url` once it answers; None on nodes that only help to serve.

    Args:
        cluster: Which server, and its options.
        teacher: The model.
        rank: Of the task.
        logs: The folder of the servers' logs.
        stop: Ends the wait for the server, and is requested once the server has ended by itself.

    Raises:
        Interrupted: `stop` was requested before the server answered.
        RuntimeError: The server does not start, or has ended while it was needed.
    """
    from datatrove.pipeline.inference.types import ServerError

    try:
        async with _server_class(cluster.server)(server_config(cluster, teacher, logs), rank) as server:
            if server is None:
                yield None
                return
            # What the server's own `make_request` waits for: set when it is ready, failed when it never will be.
            while not server._server_ready.done():
                if stop.requested:
                    raise stop.interruption(cluster.server, "while the server started")
                await asyncio.wait({server._server_ready}, timeout=_LOOK)
            await server._server_ready
            watcher = asyncio.create_task(_watch(server, stop))
            try:
                yield f"{server.get_base_url()}/v1"
            except (Interrupted, UserError):
                if watcher.done():  # it is why
                    await watcher
                raise
            finally:
                watcher.cancel()
    except ServerError as error:
        raise RuntimeError(f"{cluster.server}: {error}; its log is in {logs}") from error


async def _watch(server: Any, stop: Stop) -> None:
    """Stop the work once the server has ended; rows must not fail for that."""
    while True:
        ready = server._server_ready  # another one once the server has ended
        if ready.done() and (error := ready.exception()) is not None:
            stop.request()
            raise error
        await asyncio.sleep(_LOOK)


def _server_class(name: str) -> Any:
    from datatrove.pipeline.inference import servers

    return {"vllm": servers.VLLMServer, "sglang": servers.SGLangServer}[name]


def server_config(cluster: Cluster, teacher: Teacher, logs: Path) -> Any:
    """Return datatrove's configuration of the server of a task, an `InferenceConfig`."""
    from datatrove.pipeline.inference.run_inference import InferenceConfig

    options: dict[str, Any] = {"host": "127.0.0.1"}  # the server asks for no key, and others may be on the node
    if teacher.revision is not None:
        options["revision"] = teacher.revision
    # datatrove always gives vLLM --trust-remote-code; of two contrary flags the last one counts.
    if cluster.server == "vllm":
        options["trust-remote-code"] = teacher.trust_remote_code
    elif teacher.trust_remote_code:
        options["trust-remote-code"] = True
    return InferenceConfig(
        server_type=cluster.server,
        model_name_or_path=teacher.model,
        model_max_context=cluster.max_model_len,
        tp=cluster.tensor_parallel,
        pp=cluster.pipeline_parallel,
        model_kwargs={**options, **cluster.server_args},
        server_log_folder=str(logs),
    )
