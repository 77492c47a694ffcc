"""Keys and passwords reach the server, and nothing else: no message, no log, no store, no figures."""

from __future__ import annotations

import asyncio
import base64
import logging
import traceback
from pathlib import Path

import pytest

from posttrain.data.generate.client import Client
from posttrain.data.generate.endpoint import Endpoint
from posttrain.data.generate.requests import Failed, Request
from posttrain.data.generate.store import Store
from posttrain.errors import UserError
from posttrain.recipe.schema_generate import Sampling, Teacher
from tests.data.generate.fake_server import FAULTS, FakeServer

KEY = "sk-VerySecret0123456789"
USER, PASSWORD, QUERY = "someone", "p%40ss-Word", "token-in-the-query"
BASIC = base64.b64encode(b"someone:p@ss-Word").decode()
SECRETS = (KEY, PASSWORD, "p@ss-Word", QUERY, BASIC, f"{USER}:")


@pytest.mark.parametrize("how", ["key", "password"])
@pytest.mark.parametrize("let_in", [True, False])
def test_no_secret_gets_anywhere(
    how: str, let_in: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    right = f"Bearer {KEY}" if how == "key" else f"Basic {BASIC}"
    seen: list[str] = []

    def look(error: BaseException) -> None:
        seen.append("".join(traceback.format_exception(type(error), error, error.__traceback__)))
        seen.append(repr(error) + repr(vars(error)) + repr(error.__cause__) + repr(error.__context__))

    async def run(url: str) -> None:
        section = Teacher(model="m", base_url=url, api_key_env="KEY" if how == "key" else None, timeout=0.5)
        endpoint = Endpoint(section, {"KEY": KEY})
        with Store(tmp_path / "store") as store:
            client = Client(endpoint, store, teacher_key=("m", None), max_attempts=2, back_off=(0.01, 0.01))
            texts = [f"never {number}" for number in range(30)] + ["status 400", "status 422"]
            texts += [f"good {number}" for number in range(20)] + ["status 404"]
            for text in texts:
                message = {"role": "user", "content": f"{text} {KEY}" if text == "status 400" else text}
                try:
                    await client.ask(Request(messages=(message,), sampling=Sampling()))
                except (Failed, UserError) as error:
                    look(error)
            seen.append(repr(client.stats.snapshot()) + repr(endpoint) + endpoint.address + repr(vars(client)))
            await client.close()

    with FakeServer(faults=FAULTS, slow=1, key=right if let_in else "Bearer other") as server:
        url = server.url
        if how == "password":
            url = url.replace("http://", f"http://{USER}:{PASSWORD}@") + f"?api-key={QUERY}"
        asyncio.run(run(url))
        assert server.authorizations == {right}
        assert not let_in or server.asked["status 404"] == 1  # it came to the end
    text = "".join(seen) + caplog.text + "".join(capfd.readouterr())
    assert ("404" if let_in else "401") in text
    assert "no answer: " in text or not let_in
    for secret in SECRETS:
        assert secret not in text
        for path in tmp_path.rglob("*"):
            assert secret.encode() not in path.read_bytes()
    if not let_in:
        assert "***" in text  # the server repeats the key that it does not know


def test_a_key_is_no_part_of_what_identifies_an_answer() -> None:
    request = Request(prompt="x", sampling=Sampling())
    assert request.key("m", None) == request.key("m", None)
    assert request.key("m", None) != request.key("m", "r")
