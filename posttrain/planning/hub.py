"""Whether the hub can be reached, asked before its client: that one tries again for half a minute where nothing is.

And a single file of a repository, fetched so.
"""

from __future__ import annotations

import queue
import socket
import threading
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

_PATIENCE = 3.0  # seconds to a connection; for its answers the hub has as long as its client gives it
_PORTS = {"https": 443, "http": 80}


class NotFetched(Exception):
    """A file of a repository cannot be had; the text says why, in one line."""


@lru_cache
def unreachable(seconds: float = _PATIENCE) -> str | None:
    """Say why no connection to the hub can be made, or None if one can; asked once in a process.

    Where a proxy stands between, it is the proxy that is connected to.

    Args:
        seconds: How long to wait, for the name server as well.
    """
    from huggingface_hub import constants

    hub = urlsplit(constants.ENDPOINT)
    host = hub.hostname or ""
    if constants.HF_HUB_OFFLINE:
        return f"HF_HUB_OFFLINE keeps it from asking {host}"
    proxies = getproxies()
    proxy = None if proxy_bypass(host) else proxies.get(hub.scheme) or proxies.get("all")
    through = hub if proxy is None else urlsplit(proxy if "://" in proxy else f"//{proxy}", "http")
    name, port = through.hostname, through.port or _PORTS.get(through.scheme)
    if not name or port is None:  # a proxy of another kind: only its client knows how to reach it
        return None
    return connection_problem(name, port, seconds)


def fetch_file(repository: str, name: str, revision: str | None) -> Path:
    """Return a file of a repository in the hub's cache, where it is fetched to if it is not there yet.

    Raises:
        NotFetched: There is no such file, or it cannot be fetched.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError

    away = unreachable()
    try:  # what is in the cache is found without the hub
        return Path(hf_hub_download(repository, name, revision=revision, local_files_only=away is not None))
    except (OSError, ValueError, HfHubHTTPError) as error:
        raise NotFetched(away or str(error).splitlines()[0]) from error


def connection_problem(host: str, port: int, seconds: float) -> str | None:
    """Say why none of a host's addresses takes a connection, or None if one does.

    They are tried side by side, because one that is silent would use up the time of all; in threads that nobody waits
    for, because a name server that is silent cannot be interrupted.
    """
    heard: queue.SimpleQueue[Any] = queue.SimpleQueue()
    until = time.monotonic() + seconds

    def begin(work: Callable[..., Any], *arguments: Any) -> None:
        def run() -> None:
            try:
                heard.put(work(*arguments))
            except (OSError, UnicodeError) as error:
                heard.put(error)

        threading.Thread(target=run, daemon=True).start()

    def hear() -> Any:
        return heard.get(timeout=max(until - time.monotonic(), 0.0))

    try:
        begin(_addresses, host, port)
        answer = hear()
        if isinstance(answer, list):
            for address in answer:
                begin(_connect, address, seconds)
            for _ in list(answer):
                answer = hear()
                if answer is None:
                    return None
    except queue.Empty:
        return f"{host} does not answer within {seconds:g} s"
    return f"{host}: {getattr(answer, 'strerror', None) or answer}"


def _addresses(host: str, port: int) -> list[tuple[str, int]]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys((str(address[0]), port) for *_, address in found))


def _connect(address: tuple[str, int], seconds: float) -> None:
    socket.create_connection(address, timeout=seconds).close()
