"""Every question has one answer or one failure, whatever the server does, and none is asked for twice."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from posttrain.data.generate.client import GIVEN_UP, Client
from posttrain.data.generate.draining import Draining
from posttrain.data.generate.endpoint import Endpoint
from posttrain.data.generate.requests import Answer, Asker, Failed, Request, Transient
from posttrain.data.generate.store import Store
from posttrain.data.generate.throttle import Throttle
from posttrain.errors import UserError
from posttrain.recipe.schema_generate import Sampling, Teacher
from tests.data.generate.fake_server import FAULTS, FakeServer, answer_text

QUICK = (0.001, 0.01)  # back-off
ROWS = 2000

ASKS = """
import asyncio, sys
from posttrain.data.generate.client import Client
from posttrain.data.generate.endpoint import Endpoint
from posttrain.data.generate.requests import Request
from posttrain.data.generate.store import Store
from posttrain.data.generate.throttle import Throttle
from posttrain.recipe.schema_generate import Sampling, Teacher

async def main(url, path):
    client = Client(Endpoint(Teacher(model="m", base_url=url)), Store(path), teacher_key=("m", None),
                    throttles={"teacher": Throttle(16)})
    asks = (Request(messages=({"role": "user", "content": f"row {n}"},), sampling=Sampling(), seed=n)
            for n in range(600))
    async def worker():
        for request in asks:
            await client.ask(request)
    await asyncio.gather(*(worker() for _ in range(16)))
    await client.close()
    client.store.close()

asyncio.run(main(*sys.argv[1:]))
"""


class Engine:
    """Answers as it is told: `does` is called with the request and how often it has come before."""

    def __init__(self, does: Callable[[Request, int], Answer | Exception], seconds: float = 0.0) -> None:
        self.structured = False
        self.closed = 0
        self.came: Counter[str | None] = Counter()
        self.times: list[float] = []
        self._does = does
        self._seconds = seconds

    async def complete(self, request: Request) -> Answer:
        before = self.came[request.prompt]
        self.came[request.prompt] += 1
        self.times.append(time.monotonic())
        await asyncio.sleep(self._seconds)
        result = self._does(request, before)
        if isinstance(result, Exception):
            raise result
        return result

    async def close(self) -> None:
        self.closed += 1


def fine(request: Request, before: int = 0) -> Answer:
    return Answer(text=f"to {request.prompt}", finish_reason="stop", prompt_tokens=3, completion_tokens=2)


def ask(prompt: str) -> Request:
    return Request(prompt=prompt, sampling=Sampling())


def client_of(engine: Any, store: Store, **more: Any) -> Client:
    return Client(engine, store, **({"teacher_key": ("m", None), "back_off": QUICK} | more))


async def ask_all(client: Client, requests: Sequence[Request], at_once: int = 64) -> list[Any]:
    """Return an answer or a `Failed` for each request."""
    results: list[Any] = [None] * len(requests)
    numbers = iter(range(len(requests)))

    async def worker() -> None:
        for number in numbers:
            try:
                results[number] = await client.ask(requests[number])
            except Failed as error:
                results[number] = error

    await asyncio.gather(*(worker() for _ in range(at_once)))
    return results


def test_two_thousand_requests_through_every_fault(tmp_path: Path) -> None:
    texts = [f"{'never' if number % 100 == 7 else 'row'} {number}" for number in range(ROWS)]
    requests = [
        Request(messages=({"role": "user", "content": text},), sampling=Sampling(), seed=number)
        for number, text in enumerate(texts)
    ]

    async def run(server: FakeServer, store: Store) -> tuple[list[Any], dict[str, Any]]:
        endpoint = Endpoint(Teacher(model="m", base_url=server.url, timeout=3.0))
        # A wide throttle, because refusals that do not depend on the load would bring it to a crawl.
        client = client_of(endpoint, store, max_attempts=4, throttles={"teacher": Throttle(1024)})
        results = await ask_all(client, requests)
        await client.close()
        return results, client.stats.snapshot()

    faults = tuple(fault for fault in FAULTS if fault != "slow") * 3 + ("slow",)
    with FakeServer(faults=faults, failures=3, spread=0.01, slow=4.0) as server, Store(tmp_path / "s") as store:
        results, stats = asyncio.run(run(server, store))
        for number, (text, result) in enumerate(zip(texts, results, strict=True)):
            if text.startswith("never"):
                assert isinstance(result, Failed)
                assert result.reason.startswith("no answer: ")
                assert server.asked[text] == 4
            else:
                assert result.text == answer_text(text, number)
        # Answered once each by the server; of one that was too slow for us the server knows nothing of it.
        assert {server.answered[text] for text in texts if text.startswith("row")} == {1}
        assert len(store) == ROWS * 99 // 100 == stats["answers"]
        assert stats["failures"] == {"no answer": ROWS // 100}
        assert set(stats["retries"]) == {"429", "500", "503", "time-out", "malformed answer", "connection lost"}
        assert stats["requests"] == sum(server.asked.values())
        assert stats["requests"] == stats["answers"] + sum(stats["retries"].values()) + ROWS // 100
        assert stats["in_flight"] == 0

    with FakeServer() as server, Store(tmp_path / "s") as store:
        again, stats = asyncio.run(run(server, store))
        assert [text for text in texts if server.asked[text]] == [text for text in texts if text.startswith("never")]
        assert stats["from_store"] == ROWS * 99 // 100
        for number, (text, first, second) in enumerate(zip(texts, results, again, strict=True)):
            assert second.text == answer_text(text, number)
            assert text.startswith("never") or first == second


@pytest.mark.parametrize("after", [40, 150, 333])
def test_a_kill_repeats_at_most_what_was_in_flight(tmp_path: Path, after: int) -> None:
    with FakeServer(delay=0.02, spread=0.02) as server:
        command = [sys.executable, "-c", ASKS, server.url, str(tmp_path / "s")]
        process = subprocess.Popen(command)
        while sum(server.asked.values()) < after:
            assert process.poll() is None
            time.sleep(0.001)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        subprocess.run(command, check=True, timeout=60)
        assert set(server.asked) == {f"row {number}" for number in range(600)}
        assert sum(server.asked.values()) - 600 <= 16
        assert max(server.asked.values()) <= 2


def test_the_same_question_at_the_same_time_is_one_request(tmp_path: Path) -> None:
    async def run() -> None:
        engine = Engine(fine, 0.01)
        client = client_of(engine, store)
        answers = await asyncio.gather(*(client.ask(ask("a")) for _ in range(10)), client.ask(ask("b"), "judge"))
        assert answers[:10] == [fine(ask("a"))] * 10
        assert engine.came == {"a": 1, "b": 1}
        assert await client.ask(ask("b")) == fine(ask("b"))  # with no judge of its own, the teacher is the judge
        assert engine.came == {"a": 1, "b": 1}
        assert client.stats.from_store == 1
        await client.close()
        assert engine.closed == 1

    with Store(tmp_path / "s") as store:
        asyncio.run(run())


def test_a_judge_of_its_own_has_its_own_answers_and_throttle(tmp_path: Path) -> None:
    async def run() -> None:
        teacher, judge = Engine(fine), Engine(lambda request, before: Answer(text="5", finish_reason="stop"))
        throttles = {"teacher": Throttle(4), "judge": Throttle(1)}
        client: Asker = client_of(teacher, store, judge=judge, judge_key=("j", "r1"), throttles=throttles)
        assert (await client.ask(ask("a"))).text == "to a"
        assert (await client.ask(ask("a"), "judge")).text == "5"
        with pytest.raises(UserError, match="section `reward`"):
            await client.score([])
        assert isinstance(client, Client)
        await client.close()
        assert (teacher.closed, judge.closed) == (1, 1)

    async def score(messages: Sequence[dict[str, str]]) -> float:
        return float(len(messages))

    with Store(tmp_path / "s") as store:
        asyncio.run(run())
        assert asyncio.run(client_of(Engine(fine), store, reward=score).score([{}, {}])) == 2.0


def test_failures_for_good_are_counted_and_not_kept(tmp_path: Path) -> None:
    async def run() -> None:
        engine = Engine(
            lambda request, before: Failed("refused by the server: 400 too long") if not before else fine(request)
        )
        client = client_of(engine, store)
        with pytest.raises(Failed, match="too long"):
            await client.ask(ask("a"))
        assert client.stats.snapshot()["failures"] == {"refused by the server": 1}
        assert await client.ask(ask("a")) == fine(ask("a"))
        with pytest.raises(Failed, match="not valid Unicode"):
            await client.ask(ask("half \ud83d"))
        overloaded = client_of(Engine(lambda *_: Transient("429", overload=True)), store, max_attempts=6)
        with pytest.raises(Failed, match=r"^no answer: 429 after 6 attempts$"):
            await overloaded.ask(ask("b"))
        assert overloaded.stats.requests == 6

    with Store(tmp_path / "s") as store:
        asyncio.run(run())


def test_retry_after_holds_everyone(tmp_path: Path) -> None:
    async def run() -> None:
        def does(request: Request, before: int) -> Answer | Exception:
            first = request.prompt == "0" and not before
            return Transient("429", retry_after=0.3, overload=True) if first else fine(request)

        engine = Engine(does)
        client = client_of(engine, store)
        first = asyncio.create_task(client.ask(ask("0")))
        await asyncio.sleep(0.05)
        await asyncio.gather(first, *(client.ask(ask(str(number))) for number in range(1, 20)))
        began, *others = engine.times
        assert len(others) == 20
        assert all(0.3 <= each - began < 0.6 for each in others)

    with Store(tmp_path / "s") as store:
        asyncio.run(run())


def test_waits_grow_and_differ_and_are_the_same_in_every_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    async def wait_for(event: Any, seconds: float) -> None:
        event.close()
        waits.append(seconds)
        raise asyncio.TimeoutError

    monkeypatch.setattr("posttrain.data.generate.client.asyncio.wait_for", wait_for)

    async def run(seed: int, asked_to_wait: float | None = None) -> list[float]:
        waits.clear()
        error = Transient("500", retry_after=asked_to_wait)
        client = client_of(Engine(lambda *_: error), store, seed=seed, max_attempts=9, back_off=(1.0, 60.0))
        for prompt in "abc":
            with pytest.raises(Failed):
                await client.ask(ask(prompt))
        return list(waits)

    with Store(tmp_path / "s") as store:
        first = asyncio.run(run(0))
        assert asyncio.run(run(0)) == first
        assert asyncio.run(run(1)) != first
        # What the server asks for comes on top, so that not everyone is back the moment a pause is over.
        assert asyncio.run(run(0, 0.01)) == pytest.approx([wait + 0.01 for wait in first])
    assert len(set(first)) == 24
    for number, wait in enumerate(first):
        assert 0 <= wait <= min(60, 2 ** (number % 8))
    assert max(first) > 10


def test_draining_lets_what_is_in_flight_come_in_and_sends_nothing_more(tmp_path: Path) -> None:
    async def run() -> Engine:
        def does(request: Request, before: int) -> Answer | Exception:
            return Transient("500") if request.prompt == "fails" else fine(request)

        engine = Engine(does, 0.05)
        client = client_of(engine, store, throttles={"teacher": Throttle(4)}, back_off=(1000.0, 1000.0))
        asks = [asyncio.create_task(client.ask(ask(name))) for name in ("fails", *"abcdefgh")]
        await asyncio.sleep(0.07)  # `fails` waits for its second attempt, `d` to `g` are out
        client.stop()
        await client.drained()
        results = await asyncio.gather(*asks, return_exceptions=True)
        kinds = ["answer" if isinstance(result, Answer) else type(result).__name__ for result in results]
        assert kinds == ["Draining", *["answer"] * 7, "Draining"]
        assert await client.ask(ask("a")) == fine(ask("a"))  # what is kept needs no request
        with pytest.raises(Draining):
            await client.ask(ask("new"))
        return engine

    with Store(tmp_path / "s") as store:
        engine = asyncio.run(run())
        assert len(store) == 7
    assert sum(engine.came.values()) == 8


def test_an_asker_that_is_cancelled_wastes_no_answer(tmp_path: Path) -> None:
    async def run() -> None:
        client = client_of(Engine(fine, 0.03), store)
        asking = asyncio.create_task(client.ask(ask("a")))
        await asyncio.sleep(0.01)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await client.close()
        assert len(store) == 1

    with Store(tmp_path / "s") as store:
        asyncio.run(run())


def test_a_server_that_is_not_there_is_said_at_once_and_no_row_is_given_up(tmp_path: Path) -> None:
    async def run(url: str) -> list[Any]:
        client = client_of(Endpoint(Teacher(model="m", base_url=url)), store)
        asks = [client.ask(ask(str(number))) for number in range(300)]
        results = await asyncio.gather(*asks, return_exceptions=True)
        with pytest.raises(UserError):
            await client.ask(ask("later"))
        await client.close()
        return results

    with socket.socket() as taken, Store(tmp_path / "s") as store:
        taken.bind(("127.0.0.1", 0))
        results = asyncio.run(run(f"http://user:pass@127.0.0.1:{taken.getsockname()[1]}/v1"))
    errors = [result for result in results if isinstance(result, UserError)]
    assert errors
    assert len(errors) + sum(isinstance(result, Draining) for result in results) == 300
    assert "no connection to http://127.0.0.1:" in str(errors[0])
    assert "teacher.base_url" in str(errors[0])


def test_a_server_that_goes_away_ends_the_run_and_a_hiccup_does_not(tmp_path: Path) -> None:
    async def run(gone: bool) -> list[Any]:
        def does(request: Request, before: int) -> Answer | Exception:
            lost = request.prompt is not None and request.prompt.startswith("lost")
            return Transient("connection") if lost else fine(request)

        client = client_of(Engine(does, 0.002), store, max_attempts=4)
        await client.ask(ask(f"first {gone}"))
        asks = [client.ask(ask(f"lost {gone} {number}")) for number in range(5)]
        if not gone:
            asks += [client.ask(ask(f"fine {number}")) for number in range(5)]
        return await asyncio.gather(*asks, return_exceptions=True)

    with Store(tmp_path / "s") as store:
        for result in asyncio.run(run(gone=True)):
            assert isinstance(result, (UserError, Draining))
        results = asyncio.run(run(gone=False))
        assert [str(result) for result in results[:5]] == ["no answer: connection after 4 attempts"] * 5
        assert all(isinstance(result, Answer) for result in results[5:])


def test_many_requests_given_up_in_a_row_end_the_run_and_few_do_not(tmp_path: Path) -> None:
    async def run(fine_ones: bool) -> Counter[str]:
        def does(request: Request, before: int) -> Answer | Exception:
            return fine(request) if str(request.prompt).startswith("fine") else Transient("502")

        client = client_of(Engine(does), store, max_attempts=2)
        kinds: Counter[str] = Counter()
        for number in range(200):
            for name in ("lost", "fine") if fine_ones and number % 10 == 0 else ("lost",):
                try:
                    await client.ask(ask(f"{name} {number}"))
                    kinds["answer"] += 1
                except (Failed, UserError) as error:
                    kinds[type(error).__name__] += 1
                    message = str(error)
        assert fine_ones or "in a row were given up" in message
        return kinds

    with Store(tmp_path / "s") as store:
        assert asyncio.run(run(fine_ones=False)) == {"Failed": GIVEN_UP - 1, "UserError": 200 - GIVEN_UP + 1}
        assert asyncio.run(run(fine_ones=True)) == {"Failed": 200, "answer": 20}


def test_what_no_request_can_overcome_stops_all_of_them(tmp_path: Path) -> None:
    async def run() -> None:
        def does(request: Request, before: int) -> Answer | Exception:
            return UserError("wrong key") if request.prompt == "3" else fine(request)

        engine = Engine(does, 0.01)
        client = client_of(engine, store, throttles={"teacher": Throttle(5)})
        asks = [client.ask(ask(str(number))) for number in range(50)]
        results = await asyncio.gather(*asks, return_exceptions=True)
        kinds = Counter(type(result).__name__ for result in results)
        assert 1 <= kinds["UserError"] <= 5  # the others had a turn and were told before they were sent
        assert kinds["Draining"] + kinds["Answer"] + kinds["UserError"] == 50
        assert sum(engine.came.values()) < 15
        with pytest.raises(UserError, match="wrong key"):
            await client.ask(ask("new"))
        await client.close()

    with Store(tmp_path / "s") as store:
        asyncio.run(run())


def test_whether_the_judge_enforces_schemas_is_known_after_start(tmp_path: Path) -> None:
    async def run(**more: Any) -> bool:
        with FakeServer(**more) as server:
            client = client_of(Endpoint(Teacher(model="m", base_url=server.url)), store)
            assert not client.structured
            await client.start()
            await client.close()
            return client.structured

    with Store(tmp_path / "s") as store:
        assert asyncio.run(run(schema="heed"))
        assert not asyncio.run(run(schema="ignore"))
        assert asyncio.run(run(schema="heed", faults=("503", "429"), failures=3))
        assert len(store) == 0
