"""What is sent to a server, and what becomes of everything that it can send back."""

from __future__ import annotations

import asyncio
import socket
import time
from dataclasses import replace
from email.utils import formatdate
from typing import Any

import pytest

from posttrain.data.generate.endpoint import QUOTED, Endpoint
from posttrain.data.generate.requests import Answer, Failed, Request, Transient
from posttrain.data.generate.wire import answer_of, wait_of
from posttrain.errors import UserError
from posttrain.recipe.schema_generate import Sampling, Teacher
from tests.data.generate.fake_server import BOS, FakeServer, answer_text

SCHEMA = {"type": "object", "properties": {"number": {"type": "integer"}}}


def chat(text: str, **more: Any) -> Request:
    return Request(messages=({"role": "user", "content": text},), sampling=Sampling(), **more)


def asked(server: FakeServer, *requests: Request, bos: str | None = None, **more: Any) -> list[Any]:
    """Ask one after the other; return answers and errors."""

    async def run() -> list[Any]:
        endpoint = Endpoint(Teacher(model="m", **({"base_url": server.url} | more)), {"KEY": "key-1"}, bos=bos)
        results: list[Any] = []
        try:
            for request in requests:
                try:
                    results.append(await endpoint.complete(request))
                except (Transient, Failed, UserError) as error:
                    results.append(error)
        finally:
            await endpoint.close()
        return results

    return asyncio.run(run())


def test_a_chat_and_a_text_are_sent_with_all_that_says_how_to_draw_the_answer() -> None:
    sampling = Sampling(temperature=0.3, top_p=0.9, max_tokens=77, stop=["\n\n"])
    messages = ({"role": "system", "content": "S"}, {"role": "user", "content": "Hyvää päivää 😀"})
    with FakeServer() as server:
        answers = asked(
            server,
            Request(messages=messages, sampling=sampling, seed=5),
            Request(prompt="<s>[INST]", sampling=replace(sampling, stop=[])),
            api_key_env="KEY",
        )
    assert answers[0] == Answer(
        text=answer_text("Hyvää päivää 😀", 5), finish_reason="stop", prompt_tokens=3, completion_tokens=2
    )
    assert answers[1].text == answer_text("<s>[INST]", None)
    drawn = {"model": "m", "temperature": 0.3, "top_p": 0.9, "max_tokens": 77, "n": 1}
    assert server.bodies == [
        drawn | {"messages": list(messages), "stop": ["\n\n"], "seed": 5},
        drawn | {"prompt": "<s>[INST]", "add_special_tokens": False},
    ]
    assert server.authorizations == {"Bearer key-1"}


@pytest.mark.parametrize(
    ("fault", "kind", "overload", "wait"),
    [
        ("429", "429", True, None),
        ("429 seconds", "429", True, 7.0),
        ("429 date", "429", True, 0.0),
        ("500", "500", False, None),
        ("503", "503", True, None),
        ("slow", "time-out", True, None),
        ("truncated", "malformed answer", False, None),
        ("closed", "malformed answer", False, None),
        ("reset", "connection lost", False, None),
        ("two choices", "malformed answer", False, None),
        ("no choices", "malformed answer", False, None),
        ("null", "malformed answer", False, None),
    ],
)
def test_faults_that_pass(fault: str, kind: str, overload: bool, wait: float | None) -> None:
    with FakeServer(faults=(fault,), slow=5, retry_after="7") as server:
        error = asked(server, chat("never"), timeout=0.5)[0]
    assert isinstance(error, Transient)
    assert (error.kind, error.overload, error.retry_after) == (kind, overload, wait)


@pytest.mark.parametrize("status", [408, 409, 502, 504, 529])
def test_statuses_that_pass(status: int) -> None:
    with FakeServer() as server:
        error = asked(server, chat(f"status {status}"))[0]
    assert isinstance(error, Transient)
    assert error.kind == str(status)


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_refused_request_fails_with_the_servers_words_cut_short(status: int) -> None:
    with FakeServer() as server:
        error = asked(server, chat(f"status {status}"))[0]
    assert isinstance(error, Failed)
    assert error.reason.startswith(f"refused by the server: {status} no no")
    assert len(error.reason) <= len("refused by the server: 400 ") + QUOTED


@pytest.mark.parametrize(
    ("status", "said"), [(401, "api_key_env"), (403, "api_key_env"), (404, "correct `model`"), (405, "base_url")]
)
def test_what_would_refuse_every_request_is_the_users_to_put_right(status: int, said: str) -> None:
    with FakeServer() as server:
        error = asked(server, chat(f"status {status}"))[0]
    assert isinstance(error, UserError)
    assert said in str(error)
    assert server.url in str(error)


def test_no_server_and_redirects() -> None:
    with socket.socket() as taken, FakeServer() as server:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        port = taken.getsockname()[1]
        (unreachable,) = asked(server, chat("x"), base_url=f"http://127.0.0.1:{port}/v1")
        moved = server.url.replace("/v1", "/moved")
        (redirected,) = asked(server, chat("x"), base_url=moved, api_key_env="KEY")
    assert isinstance(unreachable, Transient)
    assert unreachable.kind == "connection"
    assert isinstance(redirected, UserError)
    assert "another address" in str(redirected)
    assert not server.asked  # the key went nowhere else


def test_a_schema_is_sent_until_the_server_refuses_it() -> None:
    with FakeServer() as server:
        asked(server, chat("x", schema=SCHEMA))
        assert server.bodies[0]["response_format"]["json_schema"]["schema"] == SCHEMA
    with FakeServer(schema="refuse") as server:
        answers = asked(server, chat("x", schema=SCHEMA), chat("y", schema=SCHEMA))
        assert [answer.text for answer in answers] == [answer_text("x", None), answer_text("y", None)]
        assert ["response_format" in body for body in server.bodies] == [True, False, False]


@pytest.mark.parametrize(("does", "structured"), [("heed", True), ("ignore", False), ("refuse", False)])
def test_whether_a_schema_is_enforced_is_found_out(does: Any, structured: bool) -> None:
    async def run() -> tuple[bool, bool, bool]:
        endpoint = Endpoint(Teacher(model="m", base_url=server.url))
        before = endpoint.structured
        found = await endpoint.probe()
        await endpoint.complete(chat("x", schema=SCHEMA))
        await endpoint.close()
        return before, found, endpoint.structured

    with FakeServer(schema=does) as server:
        assert asyncio.run(run()) == (False, structured, structured)
        assert ("response_format" in server.bodies[-1]) == structured


@pytest.mark.parametrize(
    ("does", "sent"),
    [
        ("heed", [("<s>P", False), ("<s>Q", False)]),
        ("ignore", [("P", False), ("Q", False)]),  # SGLang
        ("refuse", [("P", None), ("Q", None)]),  # transformers serve
    ],
)
def test_the_model_sees_one_bos_whatever_the_server_does_with_the_flag(does: Any, sent: list[Any]) -> None:
    requests = [Request(prompt=f"{BOS}{text}", sampling=Sampling()) for text in "PQ"]
    with FakeServer(flag=does) as server:
        asked(server, *requests, bos=BOS)
        real = [body for body in server.bodies if body["max_tokens"] > 1]
        assert [(body["prompt"], body.get("add_special_tokens")) for body in real] == sent
    with FakeServer(flag=does) as server:  # of a tokenizer that puts none in front, nothing is taken away
        asked(server, *requests)
        assert {body["prompt"] for body in server.bodies} == {"<s>P", "<s>Q"}


def test_prompts_at_the_same_time_ask_about_the_flag_once() -> None:
    async def run() -> None:
        endpoint = Endpoint(Teacher(model="m", base_url=server.url), bos=BOS)
        prompts = [Request(prompt=f"{BOS}{number}", sampling=Sampling()) for number in range(20)]
        await asyncio.gather(*map(endpoint.complete, prompts))
        await endpoint.close()

    with FakeServer(delay=0.02) as server:
        asyncio.run(run())
    assert sum(body["max_tokens"] == 1 for body in server.bodies) == 2
    assert len(server.bodies) == 22


def test_bodies_of_every_wrong_form_are_malformed() -> None:
    good = '{"choices": [{"message": {"content": "x"}, "finish_reason": "stop"}]}'
    assert answer_of(good.encode()) == Answer(text="x", finish_reason="stop")
    bad = [
        "",
        "null",
        "[]",
        "{}",
        '{"choices": {}}',
        '{"choices": [null]}',
        '{"choices": [{}]}',
        good.replace('"x"', "3"),
        good.replace('"x"', "null"),
        good.replace('"stop"', "null"),
        good.replace('"message"', '"msg"'),
        good[:-1] + ', "usage": 3}',
        "[" * 100_000,
        "\xff",
    ]
    for body in bad:
        with pytest.raises(Transient, match="malformed answer"):
            answer_of(body.encode("latin-1"))
    for body in [good.replace('"stop"', '"abort"')]:
        with pytest.raises(Transient, match="broken off"):
            answer_of(body.encode())
    with pytest.raises(Failed, match="content filter"):
        answer_of(good.replace('"x"', "null").replace("stop", "content_filter").encode())
    # A reasoning model that never got to its answer: truncated, which repeating would not change.
    assert answer_of(good.replace('"x"', "null").replace("stop", "length").encode()).finish_reason == "length"
    counts = good[:-1] + ', "usage": {"prompt_tokens": "5", "completion_tokens": -1}}'
    assert answer_of(counts.encode()) == Answer(text="x", finish_reason="stop")


def test_retry_after_as_seconds_and_as_a_date() -> None:
    now = time.time()
    assert wait_of(None, now) is None
    assert wait_of("12", now) == 12
    assert wait_of(formatdate(now + 90, usegmt=True), now) == pytest.approx(90, abs=1)
    assert wait_of(formatdate(now - 90, usegmt=True), now) == 0
    assert wait_of(formatdate(now + 90), now) == pytest.approx(90, abs=1)  # with the zone -0000
    for nonsense in ("soon", "-3", "inf", "", "²"):
        assert wait_of(nonsense, now) is None


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"base_url": "localhost:8000"}, "not a URL"),
        ({"base_url": "http://"}, "not a URL"),
        ({"base_url": "http://host:port/v1"}, "not a URL"),
        ({"api_key_env": "MISSING"}, "MISSING is not set"),
        ({"api_key_env": "BLANK"}, "BLANK is not set"),
        ({"api_key_env": "ODD"}, "ODD holds something that is no key"),
        ({"api_key_env": "KEY", "base_url": "http://u:p@host/v1"}, "keep one of them"),
    ],
)
def test_sections_that_cannot_work(section: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        Endpoint(Teacher(model="m", **section), {"KEY": "k", "BLANK": " ", "ODD": "a\nb"})
    assert "u:p" not in str(caught.value)
