"""Asking a server that speaks OpenAI's API: vLLM, SGLang, `transformers serve`, llama.cpp, or one that is paid for."""

from __future__ import annotations

import asyncio
import json
import os
import re
import time
from base64 import b64encode
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

import aiohttp

from posttrain.data.generate.requests import Answer, Failed, Request, Transient
from posttrain.data.generate.wire import answer_of, wait_of, words_of
from posttrain.errors import UserError
from posttrain.recipe.schema_generate import Sampling, Teacher

CONNECT = 30.0  # seconds to reach the server, apart from the time for the answer
QUOTED = 200  # characters of the server's own words in a message
_OVERLOAD = (429, 503, 529)
_TRANSIENT = (408, 409, 425, 429)  # and everything from 500 on
_SCHEMA = {
    "type": "object",
    "properties": {"number": {"type": "integer", "enum": [1, 2, 3]}},
    "required": ["number"],
    "additionalProperties": False,
}


class Endpoint:
    """A server with `/chat/completions` and `/completions` under `base_url`.

    A text prompt has its special tokens written out, and most tokenizers would put another BOS in front. vLLM and
    llama.cpp's server differ in what they take, so it goes like this: `add_special_tokens: false` is sent, which vLLM
    heeds. `transformers serve` refuses the unknown field; from then on it is left out. SGLang ignores it, which shows,
    where `bos` is given, in the length of the first prompt asked with and without the field. A server that does not
    heed it gets prompts without their leading `bos`, which it puts there itself.

    Args:
        teacher: The model and where it is.
        environment: Where the key is looked up under `api_key_env`.
        bos: The text that the model's tokenizer puts in front of any text by itself; None where it puts none.

    Attributes:
        address: The server's URL without user, password and query: fit for messages.
        structured: Whether the server enforces a schema; False until `probe` has found out.

    Raises:
        UserError: The URL is none, or the environment variable with the key is missing.
    """

    def __init__(
        self, teacher: Teacher, environment: Mapping[str, str] = os.environ, *, bos: str | None = None
    ) -> None:
        self.structured = False
        self._teacher = teacher
        self._bos = bos
        self._refuses_schema = False
        self._heeds_flag: bool | None = None if bos is not None else True  # `add_special_tokens: false`
        self._flag_sent = True
        self._flag_known = asyncio.Lock()
        self._session: aiohttp.ClientSession | None = None
        try:
            parts = urlsplit(teacher.base_url)
            host, port = parts.hostname, parts.port
        except ValueError:
            parts, host, port = urlsplit(""), None, None
        if parts.scheme not in ("http", "https") or not host:
            raise UserError(f"base_url of {teacher.model}: not a URL such as http://localhost:8000/v1")
        place = (f"[{host}]" if ":" in host else host) + (f":{port}" if port else "")
        self.address = f"{parts.scheme}://{place}{parts.path.rstrip('/')}"
        self._query = f"?{parts.query}" if parts.query else ""
        self._headers, self._secrets = _credentials(teacher, environment, parts.username, parts.password)
        self._secrets |= {value for _, value in parse_qsl(parts.query)} | {quote(v) for _, v in parse_qsl(parts.query)}

    async def complete(self, request: Request) -> Answer:
        """Answer one request; see `Engine`.

        Raises:
            Transient: The server had too much to do, failed, could not be reached, or answered nonsense.
            Failed: The server refuses this request.
            UserError: It would refuse every request: wrong key, model or address.
        """
        if request.prompt is not None and self._heeds_flag is None:
            async with self._flag_known:
                if self._heeds_flag is None:
                    self._heeds_flag = await self._does_heed_flag(request)
        while True:
            body = self._body(request)
            try:
                return await self._post("completions" if request.messages is None else "chat/completions", body)
            except _Refused as error:
                if not self._goes_without(body, error.said):
                    raise Failed(f"refused by the server: {error.status} {error.said}".rstrip()) from None

    async def probe(self) -> bool:
        """Find out whether the server enforces a schema, by one short question that a model would answer in words.

        Raises:
            Transient: It could not be asked; try again.
            UserError: It would refuse every request.
        """
        question = {"role": "user", "content": "What is the capital of Finland? Answer in one word."}
        sampling = Sampling(temperature=0.0, max_tokens=64)
        try:
            answer = await self.complete(Request(messages=(question,), sampling=sampling, schema=_SCHEMA))
            given = json.loads(answer.text)
        except (Failed, ValueError):
            given = None
        self.structured = not self._refuses_schema and isinstance(given, dict) and given.get("number") in (1, 2, 3)
        self._refuses_schema = not self.structured
        return self.structured

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _body(self, request: Request) -> dict[str, Any]:
        sampling = request.sampling
        body: dict[str, Any] = {
            "model": self._teacher.model,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_tokens,
            "n": 1,
        }
        if request.messages is not None:
            body["messages"] = list(request.messages)
        else:
            body["prompt"] = request.prompt
            if self._flag_sent:
                body["add_special_tokens"] = False
            if self._bos and not self._heeds_flag:
                body["prompt"] = (request.prompt or "").removeprefix(self._bos)
        if sampling.stop:
            body["stop"] = sampling.stop
        if request.seed is not None:
            body["seed"] = request.seed
        if request.schema is not None and not self._refuses_schema:
            schema = {"name": "answer", "schema": request.schema, "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        return body

    def _goes_without(self, body: Mapping[str, Any], said: str) -> bool:
        """Take note of a field that the server refuses; return whether to ask again without it."""
        if "response_format" in body and re.search("response_format|json_schema|structured|guided", said):
            self._refuses_schema, self.structured = True, False
            return True
        if "add_special_tokens" in body and "add_special_tokens" in said:
            self._flag_sent, self._heeds_flag = False, False
            return True
        return False

    async def _does_heed_flag(self, request: Request) -> bool:
        counts = []
        for add in (False, True):
            body = {"model": self._teacher.model, "prompt": request.prompt, "max_tokens": 1, "add_special_tokens": add}
            try:
                counts.append((await self._post("completions", body)).prompt_tokens)
            except _Refused as error:
                if self._goes_without(body, error.said):
                    return False
                raise Failed(f"refused by the server: {error.status} {error.said}".rstrip()) from None
        # Where the server counts no tokens there is nothing to go by, and the field is taken to work.
        return 0 in counts or counts[1] > counts[0]

    async def _post(self, path: str, body: Mapping[str, Any]) -> Answer:
        if self._session is None:
            # How many are out at once is the throttle's business.
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0),
                timeout=aiohttp.ClientTimeout(total=self._teacher.timeout, sock_connect=CONNECT),
                headers=self._headers,
            )
        # Redirects are not followed: the key is for this server alone.
        url, sent = f"{self.address}/{path}{self._query}", json.dumps(body).encode()
        # No error is raised from aiohttp's, which hold the request and so its headers.
        try:
            async with self._session.post(url, data=sent, allow_redirects=False) as response:
                status, headers, received = response.status, response.headers, await response.read()
        except aiohttp.ClientPayloadError:
            raise Transient("malformed answer") from None
        except aiohttp.ClientSSLError as error:
            raise UserError(self._scrubbed(f"{self.address}: no secure connection: {error}")) from None
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
            raise Transient("connection") from None
        except asyncio.TimeoutError:
            raise Transient("time-out", overload=True) from None
        except aiohttp.InvalidURL:
            raise UserError(f"{self.address}: base_url is not a URL that can be asked") from None
        except (aiohttp.ClientError, OSError):
            raise Transient("connection lost") from None
        if status == 200:
            return answer_of(received)
        if status in _TRANSIENT or status >= 500:
            wait = wait_of(headers.get("Retry-After"), time.time())
            raise Transient(str(status), retry_after=wait, overload=status in _OVERLOAD)
        said = self._scrubbed(words_of(received))
        if 200 <= status < 300:
            raise Transient("malformed answer")
        if status in (401, 403, 404, 405) or status < 400:
            raise UserError(
                f"{self.address}: the server answered {status}{f' ({said})' if said else ''}; {self._advice(status)}"
            )
        raise _Refused(status, said)

    def _advice(self, status: int) -> str:
        if status < 400:
            return "it sends requests on to another address: write that one in base_url"
        if status in (404, 405):
            return f"it may not serve {self._teacher.model!r}: correct `model`, or base_url, which mostly ends in /v1"
        if self._teacher.api_key_env is None:
            return "name the environment variable that holds the key in api_key_env"
        return f"the environment variable {self._teacher.api_key_env} has to hold a key for it"

    def _scrubbed(self, said: str) -> str:
        """Return what a server said, short and on one line, without what must not be read."""
        for secret in sorted(self._secrets, key=len, reverse=True):
            if secret:
                said = said.replace(secret, "***")
        said = " ".join(said.split())
        return said if len(said) <= QUOTED else said[: QUOTED - 1] + "…"


class _Refused(Exception):
    """What the server says against one request."""

    def __init__(self, status: int, said: str) -> None:
        super().__init__(status, said)
        self.status = status
        self.said = said


def _credentials(
    teacher: Teacher, environment: Mapping[str, str], user: str | None, password: str | None
) -> tuple[dict[str, str], set[str]]:
    """Return the headers to send, and what in them must not be read."""
    headers = {"Content-Type": "application/json"}
    if teacher.api_key_env is not None:
        key = environment.get(teacher.api_key_env, "").strip()
        if not key or not key.isascii() or not key.isprintable():
            wrong = "holds something that is no key" if key else "is not set"
            raise UserError(f"api_key_env of {teacher.model}: the environment variable {teacher.api_key_env} {wrong}")
        if user or password:
            raise UserError(
                f"base_url of {teacher.model} has a user or password in it and there is an api_key_env as well: "
                "keep one of them"
            )
        return headers | {"Authorization": f"Bearer {key}"}, {key}
    if user or password:
        written = {user or "", password or ""}
        pair = f"{unquote(user or '')}:{unquote(password or '')}"
        basic = b64encode(pair.encode()).decode()
        return headers | {"Authorization": f"Basic {basic}"}, {*written, *map(unquote, written), basic}
    return headers, set()
