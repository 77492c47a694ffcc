"""A stand-in for the hub: as much of its HTTP API as uploading to repositories needs, kept in memory."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_standInForATokenOfTheHub0123456789"
LARGE = 64 << 10  # bytes, from which it keeps a file in LFS


@dataclass
class Repository:
    """A repository: whether it is private, and the content of each file on each branch; a digest where it is in LFS."""

    private: bool
    branches: dict[str, dict[str, bytes | str]] = field(default_factory=lambda: {"main": {".gitattributes": b"*\n"}})
    commits: list[str] = field(default_factory=list)


class Hub(ThreadingHTTPServer):
    """The server. `uploads` lists the digests of large files as they come in; after `fail_after` it takes no more."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories: dict[str, Repository] = {}
        self.blobs: dict[str, bytes] = {}
        self.uploads: list[str] = []
        self.fail_after: int | None = None
        self.tokens: set[str | None] = set()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def content(self, repository: str, branch: str = "main") -> dict[str, bytes]:
        """Return the files of a branch, those in LFS by their content too."""
        files = self.repositories[repository].branches[branch]
        return {name: self.blobs[kept] if isinstance(kept, str) else kept for name, kept in files.items()}


class _Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _send(self, content: Any, status: int = 200) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _repository(self, parts: list[str]) -> Repository:
        return self.server.repositories["/".join(parts[:2])]

    def do_GET(self) -> None:
        """List the files of a branch."""
        parts = [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]
        assert parts[:2] == ["api", "models"], parts
        assert parts[4] == "tree", parts
        files = self._repository(parts[2:]).branches[parts[5]]
        self._send([_entry(name, kept, self.server.blobs) for name, kept in files.items()])

    def do_PUT(self) -> None:
        """Take a large file."""
        content = self._body()
        if self.server.fail_after is not None and len(self.server.uploads) >= self.server.fail_after:
            self._send({"error": "out of order"}, 403)
            return
        digest = hashlib.sha256(content).hexdigest()
        assert self.path == f"/blobs/{digest}"
        self.server.uploads.append(digest)
        self.server.blobs[digest] = content
        self._send({})

    def do_POST(self) -> None:
        """Make a repository or a branch, say how files are to be sent, or commit."""
        self.server.tokens.add(self.headers.get("Authorization"))
        parts = [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]
        body = self._body()
        if parts == ["api", "repos", "create"]:
            self._create(json.loads(body))
        elif parts == ["api", "validate-yaml"]:
            self._send({"errors": [], "warnings": []})
        elif parts[-2:] == ["objects", "batch"]:
            self._batch(json.loads(body))
        else:
            repository = self._repository(parts[2:])
            {"branch": self._branch, "preupload": self._preupload, "commit": self._commit}[parts[4]](
                repository, parts[5], body
            )

    def _create(self, wanted: dict[str, Any]) -> None:
        name = f"{wanted['organization']}/{wanted['name']}"
        there = name in self.server.repositories
        if not there:
            self.server.repositories[name] = Repository(private=wanted.get("visibility") == "private")
        self._send({"url": f"{self.server.url}/{name}", "error": "it exists"}, 409 if there else 200)

    def _branch(self, repository: Repository, branch: str, body: bytes) -> None:
        there = branch in repository.branches
        if not there:
            repository.branches[branch] = dict(repository.branches["main"])
        self._send({"error": "it exists"} if there else {}, 409 if there else 200)

    def _preupload(self, repository: Repository, branch: str, body: bytes) -> None:
        files = json.loads(body)["files"]
        modes = [
            {"path": file["path"], "uploadMode": "lfs" if file["size"] >= LARGE else "regular", "shouldIgnore": False}
            for file in files
        ]
        self._send({"files": modes})

    def _batch(self, wanted: dict[str, Any]) -> None:
        objects = []
        for one in wanted["objects"]:
            answer: dict[str, Any] = {"oid": one["oid"], "size": one["size"]}
            if one["oid"] not in self.server.blobs:
                answer["actions"] = {"upload": {"href": f"{self.server.url}/blobs/{one['oid']}"}}
            objects.append(answer)
        self._send({"transfer": "basic", "objects": objects})

    def _commit(self, repository: Repository, branch: str, body: bytes) -> None:
        files = repository.branches[branch]
        for line in body.decode().splitlines():
            operation = json.loads(line)
            value = operation["value"]
            if operation["key"] == "header":
                repository.commits.append(f"{branch}: {value['summary']}")
            elif operation["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif operation["key"] == "lfsFile":
                assert value["oid"] in self.server.blobs, "committed before it was sent"
                files[value["path"]] = value["oid"]
            elif operation["key"] == "deletedFile":
                del files[value["path"]]
        self._send({"commitUrl": f"{self.server.url}/a/b/commit/1", "commitOid": "1" * 40, "success": True})


def _entry(name: str, kept: bytes | str, blobs: dict[str, bytes]) -> dict[str, Any]:
    if isinstance(kept, str):
        size = len(blobs[kept])
        lfs = {"oid": kept, "size": size, "pointerSize": 134}
        return {"type": "file", "path": name, "oid": "0" * 40, "size": size, "lfs": lfs}
    oid = hashlib.sha1(b"blob %d\0" % len(kept) + kept, usedforsecurity=False).hexdigest()
    return {"type": "file", "path": name, "oid": oid, "size": len(kept)}
