"""A server that speaks OpenAI's API and fails as servers do, each request as often as its content says.

What a request meets is a function of its body alone, so that a run can be repeated: it fails a known number of times,
each time in a known way, and then is answered by a text that is a function of prompt and seed. All answers have the
same id, and longer delays for some make them come out of order. Run as a script it serves until it is killed.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import threading
import time
from collections import Counter
from email.utils import formatdate
from types import TracebackType
from typing import Any, Literal

from aiohttp import web

FAULTS = (
    "429",
    "429 seconds",
    "429 date",
    "500",
    "503",
    "slow",
    "truncated",
    "closed",
    "two choices",
    "no choices",
    "null",
    "reset",
)
BOS = "<s>"


def answer_text(prompt: str, seed: int | None) -> str:
    """Return what the server answers to a prompt (of a chat: its last turn)."""
    return f"answer {hashlib.sha256(f'{prompt} {seed}'.encode()).hexdigest()[:16]}"


class FakeServer:
    """A context manager around a server in a thread.

    Args:
        faults: What requests can meet, out of `FAULTS`.
        failures: The most often that one request fails.
        delay: Seconds until an answer.
        spread: Seconds more at most, another number for each request.
        slow: Seconds that the fault `slow` takes.
        retry_after: Seconds in the header of the fault `429 seconds`.
        schema: Whether `response_format` is heeded, ignored or refused.
        flag: The same for `add_special_tokens`; a tokenizer that heeds nothing puts `BOS` before a prompt.
        key: If given, the only Authorization header that is let in.

    Attributes:
        asked: How often each prompt came, whatever was sent back.
        answered: How often each prompt was answered as it should be.
        bodies: The bodies of all requests, where `record`.
        authorizations: All Authorization headers seen.
        most_at_once: The most requests that were in the server at once.
    """

    def __init__(
        self,
        *,
        faults: tuple[str, ...] = (),
        failures: int = 2,
        delay: float = 0.0,
        spread: float = 0.0,
        slow: float = 1.0,
        retry_after: str = "0",
        schema: Literal["heed", "ignore", "refuse"] = "heed",
        flag: Literal["heed", "ignore", "refuse"] = "heed",
        key: str | None = None,
        record: bool = True,
    ) -> None:
        self.faults = faults
        self.failures = failures
        self.delay = delay
        self.spread = spread
        self.slow = slow
        self.retry_after = retry_after
        self.schema = schema
        self.flag = flag
        self.key = key
        self.record = record
        self.asked: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()
        self.bodies: list[dict[str, Any]] = []
        self.authorizations: set[str | None] = set()
        self.most_at_once = 0
        self.port = 0
        self._inside = 0
        self._tries: Counter[bytes] = Counter()
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    @property
    def url(self) -> str:
        """The server's `base_url`."""
        return f"http://127.0.0.1:{self.port}/v1"

    def __enter__(self) -> FakeServer:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    async def serve(self, port: int = 0) -> web.AppRunner:
        """Begin to serve in the running loop."""
        app = web.Application(client_max_size=2**30)
        app.router.add_post("/v1/chat/completions", self._post)
        app.router.add_post("/v1/completions", self._post)
        app.router.add_post("/moved/chat/completions", self._moved)
        app.router.add_get("/health", self._health)
        app.router.add_get("/v1/models", self._health)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", port, backlog=1024)
        await site.start()
        self.port = runner.addresses[0][1]
        return runner

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        runner = self._loop.run_until_complete(self.serve())
        self._ready.set()
        self._loop.run_forever()
        self._loop.run_until_complete(runner.cleanup())
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0.01))
        self._loop.close()

    async def _health(self, request: web.Request) -> web.Response:
        return web.json_response({"data": []})

    async def _moved(self, request: web.Request) -> web.Response:
        raise web.HTTPTemporaryRedirect(f"http://localhost:{self.port}/v1/chat/completions")

    async def _post(self, request: web.Request) -> web.StreamResponse:
        self._inside += 1
        self.most_at_once = max(self.most_at_once, self._inside)
        try:
            return await self._respond(request)
        finally:
            self._inside -= 1

    async def _respond(self, request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        body = json.loads(raw)
        prompt = body["messages"][-1]["content"] if "messages" in body else body["prompt"]
        self.asked[prompt] += 1
        if self.record:
            self.bodies.append(body)
        given = request.headers.get("Authorization")
        self.authorizations.add(given)
        if self.key is not None and given != self.key:
            return _error(401, f"Incorrect API key provided: {given}")
        if refusal := self._refusal(body, prompt):
            return refusal
        digest = hashlib.sha256(raw).digest()
        if self.delay or self.spread:
            await asyncio.sleep(self.delay + self.spread * digest[0] / 255)
        reply = self._reply(body, prompt)
        if self.faults:
            tries = self._tries[digest]
            self._tries[digest] += 1
            if tries < digest[1] % (self.failures + 1) or prompt.startswith("never"):
                fault = self.faults[digest[2 + tries % 30] % len(self.faults)]
                return await self._fail(fault, request, reply)
        self.answered[prompt] += 1
        return web.json_response(reply)

    def _refusal(self, body: dict[str, Any], prompt: str) -> web.Response | None:
        if prompt.startswith("status "):
            return _error(int(prompt.split()[1]), "no " * 200 + str(body.get("messages")))
        if body["model"] == "no-such-model":
            return _error(404, "The model `no-such-model` does not exist.")
        if self.schema == "refuse" and "response_format" in body:
            return _error(400, "response_format is not supported")
        if self.flag == "refuse" and "add_special_tokens" in body:
            return web.json_response({"detail": "Unexpected fields in the request: {'add_special_tokens'}"}, status=422)
        return None

    def _reply(self, body: dict[str, Any], prompt: str) -> dict[str, Any]:
        text = answer_text(prompt, body.get("seed"))
        if self.schema == "heed" and "response_format" in body:
            text = '{"number": 1}'
        count = len(prompt.split())
        if "prompt" in body and (self.flag != "heed" or body.get("add_special_tokens", True)):
            count += 1
        choice: dict[str, Any] = {"index": 0, "finish_reason": "length" if body["max_tokens"] < 2 else "stop"}
        if "messages" in body:
            choice["message"] = {"role": "assistant", "content": text}
        else:
            choice["text"] = text
        usage = {"prompt_tokens": count, "completion_tokens": 2, "total_tokens": count + 2}
        return {"id": "same", "object": "completion", "model": body["model"], "choices": [choice], "usage": usage}

    async def _fail(self, fault: str, request: web.Request, reply: dict[str, Any]) -> web.StreamResponse:
        if fault.startswith("429"):
            wait = {"429": None, "429 seconds": self.retry_after, "429 date": formatdate(time.time(), usegmt=True)}
            headers = {"Retry-After": value} if (value := wait[fault]) is not None else {}
            return web.json_response({"error": {"message": "too many requests"}}, status=429, headers=headers)
        if fault in ("500", "503"):
            return _error(int(fault), "out of order")
        if fault == "slow":
            await asyncio.sleep(self.slow)
        elif fault == "truncated":
            return web.Response(body=json.dumps(reply).encode()[:-20], content_type="application/json")
        elif fault in ("closed", "reset"):
            assert request.transport is not None
            if fault == "closed":
                head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n"
                request.transport.write(head + json.dumps(reply).encode()[:50])
            request.transport.close()
        elif fault == "two choices":
            reply["choices"] *= 2
        elif fault == "no choices":
            reply["choices"] = []
        elif fault == "null":
            reply["choices"][0]["message"]["content"] = None
        else:
            raise ValueError(fault)
        return web.json_response(reply)


def _error(status: int, message: str) -> web.Response:
    return web.json_response({"error": {"message": message, "type": "error", "code": status}}, status=status)


async def _forever(server: FakeServer, port: int) -> None:
    await server.serve(port)
    print(server.url, flush=True)
    await asyncio.Event().wait()


def main() -> None:
    """Serve, and print the URL."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--delay", type=float, default=0.05)
    options = parser.parse_args()
    asyncio.run(_forever(FakeServer(delay=options.delay, record=False), options.port))


if __name__ == "__main__":
    main()
