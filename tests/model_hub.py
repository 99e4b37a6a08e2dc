"""A model hub for tests: a real HTTP server that answers as the hub does, as far as its client asks.

Information, listing and files by revision; large files by a redirect, with ranges; gated models; connections that are
cut or held on purpose.
"""

import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

GOOD_TOKEN = "hf_may_read_it"  # noqa: S105 - of this server alone
OTHER_TOKEN = "hf_of_somebody_else"  # noqa: S105 - same
COMMIT = "a" * 40
CHUNK_BYTES = 64 * 1024


@dataclass
class Repository:
    """One model."""

    files: Mapping[str, bytes]
    commits: dict[str, str] = field(default_factory=lambda: {"main": COMMIT})
    """By branch or tag."""
    is_gated: bool = False
    claimed_bytes: Mapping[str, int] = field(default_factory=dict)
    """Sizes that the listing tells instead of the true ones."""

    def commit(self, revision: str) -> str | None:
        """What a revision is; None: there is none such."""
        return revision if revision in self.commits.values() else self.commits.get(revision)

    def listing(self) -> list[dict[str, Any]]:
        """As the hub's tree."""
        return [self._entry(path, content) for path, content in sorted(self.files.items())]

    def _entry(self, path: str, content: bytes) -> dict[str, Any]:
        size = self.claimed_bytes.get(path, len(content))
        entry: dict[str, Any] = {"type": "file", "path": path, "size": size, "oid": git_digest(content)}
        if is_large(path):
            entry["lfs"] = {"oid": sha256(content), "size": size, "pointerSize": 134}
        return entry


@dataclass(frozen=True)
class Asked:
    """One request that came."""

    method: str
    path: str
    byte_range: str | None
    token: str | None


@dataclass
class ModelHub:
    """The server's state; tests change it while it runs."""

    url: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    cuts: dict[str, list[int]] = field(default_factory=dict)
    """By path: after so many bytes the connection ends, once for each number."""
    held: dict[str, threading.Event] = field(default_factory=dict)
    """By path: half of it is sent, and the rest when the event is set."""

    @property
    def large_files_url(self) -> str:
        """Where large files are sent from."""
        return self.url.replace("127.0.0.1", "localhost") + "/large"

    def fetched(self) -> list[str]:
        """Paths of the files whose content was asked for, in order."""
        return [
            asked.path.rpartition("/")[2] for asked in self.asked if asked.method == "GET" and "/api/" not in asked.path
        ]


def folder_files(folder: Path) -> dict[str, bytes]:
    """What lies in a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def sha256(content: bytes) -> str:
    """How the hub names a large file."""
    return hashlib.sha256(content).hexdigest()


def git_digest(content: bytes) -> str:
    """How git names a file."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def is_large(path: str) -> bool:
    """Whether it is kept outside of git."""
    return path.endswith((".safetensors", ".bin"))


@contextmanager
def model_hub() -> Iterator[ModelHub]:
    """A hub on a free port of this machine."""
    hub = ModelHub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield hub
    finally:
        for event in hub.held.values():
            event.set()
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: ModelHub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as the base class has it
        """Nothing: requests are kept."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    @property
    def _token(self) -> str | None:
        given = self.headers.get("Authorization")
        return given.removeprefix("Bearer ") if given else None

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append(Asked(self.command, path, self.headers.get("Range"), self._token))
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/(.+?))?", path):
            self._api(found[1], found[2] or "revision", found[3] or "main")
        elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._resolve(found[1], found[2], found[3])
        elif found := re.fullmatch(r"/large/([^/]+/[^/]+)/(.+)", path):
            self._content(found[2], self.hub.repositories[found[1]].files[found[2]])
        else:
            self._refuse(404, "")

    def _allowed(self, name: str, revision: str, *, is_file: bool) -> Repository | None:
        """The model, if it may be had; otherwise the refusal is sent."""
        repository = self.hub.repositories.get(name)
        if repository is None:
            self._refuse(404 if self._token else 401, "RepoNotFound")
        elif repository.commit(revision) is None:
            self._refuse(404, "RevisionNotFound")
        elif repository.is_gated and is_file and self._token != GOOD_TOKEN:
            # What a gated model consists of is public; its files are not.
            self._refuse(403 if self._token else 401, "GatedRepo")
        else:
            return repository
        return None

    def _api(self, name: str, what: str, revision: str) -> None:
        if (repository := self._allowed(name, revision, is_file=False)) is None:
            return
        if what == "tree":
            self._send(json.dumps(repository.listing()).encode())
        else:
            self._send(json.dumps({"id": name, "sha": repository.commit(revision), "siblings": []}).encode())

    def _resolve(self, name: str, revision: str, path: str) -> None:
        if (repository := self._allowed(name, revision, is_file=True)) is None:
            return
        content = repository.files.get(path)
        if content is None:
            self._refuse(404, "EntryNotFound")
            return
        headers = {"X-Repo-Commit": str(repository.commit(revision))}
        if not is_large(path):
            self._content(path, content, headers | {"ETag": f'"{git_digest(content)}"'})
            return
        headers |= {"X-Linked-Etag": f'"{sha256(content)}"', "X-Linked-Size": str(len(content))}
        # On another host, as the hub has them: there the client stops looking for headers, and sends no token.
        self._send(b"", 302, headers | {"Location": f"{self.hub.large_files_url}/{name}/{path}"})

    def _content(self, path: str, content: bytes, headers: Mapping[str, str] | None = None) -> None:
        first = 0
        if asked := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")):
            first = int(asked[1])
        cut = self.hub.cuts.get(path) if self.command == "GET" else None
        last = cut.pop(0) if cut else len(content)
        self.send_response(206 if first else 200)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if first:
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - first))
        self.end_headers()
        if self.command == "GET":
            self._write(path, content[first:last])
        if last < len(content):
            self.close_connection = True

    def _write(self, path: str, content: bytes) -> None:
        try:
            if path in self.hub.held:
                half = len(content) // 2
                self.wfile.write(content[:half])
                self.wfile.flush()
                self.hub.held[path].wait(120)
                content = content[half:]
            self.wfile.write(content)
        except OSError:
            self.close_connection = True  # whoever read is gone

    def _refuse(self, status: int, code: str) -> None:
        self._send(b"{}", status, {"X-Error-Code": code, "X-Error-Message": f"no: {code}"})

    def _send(self, body: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in ({"Content-Type": "application/json"} | dict(headers or {})).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)
