"""The servers that `generate` asks: whether they answer, let us in, and serve the model that the recipe names."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit, urlunsplit

from posttrain.preflight.findings import Finding, error, note, warning

if TYPE_CHECKING:
    from posttrain.preflight.subject import Subject
    from posttrain.recipe.schema_generate import Teacher

TIMEOUT = 5.0  # seconds


def check(subject: Subject) -> Iterator[Finding]:
    """Ask each server that the recipe needs for its models."""
    recipe = subject.recipe
    if not recipe.generate or subject.complete("generate") is not None:
        return
    served = recipe.cluster is not None and recipe.cluster.server != "endpoint"
    for name, model in (("teacher", recipe.teacher), ("judge", recipe.judge)):
        if model is None or model.engine != "endpoint":
            continue
        if name == "teacher" and served:
            yield note("teacher: its server is started by the tasks of `cluster`, so it was not asked")
            continue
        yield from ask(name, model)


class _Stay(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: a key is for the server that the recipe names."""

    def redirect_request(self, *arguments: object, **more: object) -> None:
        return None


def ask(name: str, model: Teacher) -> Iterator[Finding]:
    """Ask one server.

    Args:
        name: The section, `teacher` or `judge`.
        model: The section.
    """
    parts = urlsplit(model.base_url)
    headers = {}
    if model.api_key_env is not None:
        key = os.environ.get(model.api_key_env, "").strip()
        if not key:
            yield error(
                f"{name}.api_key_env: the environment variable {model.api_key_env} is not set; "
                f"export {model.api_key_env}=... before the run"
            )
            return
        headers["Authorization"] = f"Bearer {key}"
    elif parts.username or parts.password:
        pair = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
        headers["Authorization"] = f"Basic {b64encode(pair.encode()).decode()}"
    place = parts.netloc.rpartition("@")[2]
    shown = urlunsplit((parts.scheme, place, parts.path.rstrip("/"), "", ""))
    url = urlunsplit((parts.scheme, place, f"{parts.path.rstrip('/')}/models", parts.query, ""))
    request = urllib.request.Request(url, headers=headers)
    try:
        with urllib.request.build_opener(_Stay).open(request, timeout=TIMEOUT) as response:
            body = response.read(1 << 22)
    except urllib.error.HTTPError as answer:
        answer.close()
        yield from _refused(name, model, shown, answer.code)
        return
    except (OSError, ValueError) as problem:
        reason = getattr(problem, "reason", problem)
        yield error(f"{name}.base_url: {shown} does not answer ({reason}); start the server, or correct the address")
        return
    yield from _models(name, model, shown, body)


def _refused(name: str, model: Teacher, shown: str, status: int) -> Iterator[Finding]:
    if status in (401, 403):
        by = f"{model.api_key_env} holds" if model.api_key_env else f"{name}.api_key_env names"
        yield error(f"{name}.base_url: {shown} answers {status}: it lets nobody in without its key; see that {by} one")
    elif status == 404:  # some servers do not list their models
        yield warning(f"{name}.base_url: {shown} answers, but has no list of models; it mostly ends in /v1")
    elif status >= 500:
        yield error(f"{name}.base_url: {shown} answers {status}: the server is not ready; look at its log")
    else:
        yield warning(f"{name}.base_url: {shown} answers {status} when asked for its models")


def _models(name: str, model: Teacher, shown: str, body: bytes) -> Iterator[Finding]:
    try:
        served = [str(entry["id"]) for entry in json.loads(body)["data"]]
    except (ValueError, KeyError, TypeError):
        yield warning(f"{name}.base_url: {shown} answers, but not with a list of models as OpenAI's API has it")
        return
    if model.model in served:
        yield note(f"{name}: {shown} answers and serves {model.model}")
    else:
        few = ", ".join(served[:5]) + (" and more" if len(served) > 5 else "")
        yield error(
            f"{name}.model: {shown} does not serve {model.model!r} but {few or 'nothing'}; give that, or another server"
        )
