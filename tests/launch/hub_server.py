"""A hub for tests: the parts of Hugging Face's protocol that a pull needs, and everything that can go wrong in them."""

from __future__ import annotations

import hashlib
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "a" * 40
LARGE = (".safetensors", ".bin", ".gguf")  # kept with Git LFS, and served from another host


@dataclass
class Seen:
    """A request that came."""

    host: str
    path: str
    headers: dict[str, str]


@dataclass
class HubServer:
    """A hub, and beside it the host that large files are redirected to. Use as a context.

    Attributes:
        repositories: `OWNER/NAME` -> revision -> (commit, file name -> content).
        listing: Changes to what the listing says of a file: name -> size, blobId or lfs.
        statuses: Path -> status, headers and JSON that are answered instead.
        served: Other content than the listing promises: file name -> what is sent.
        breaks: How many bytes of a file are sent before each connection breaks, one number for each connection.
        ignores_ranges: Send the whole file whatever was asked for.
        hold: Large files wait for it before their last byte.
    """

    repositories: dict[str, dict[str, tuple[str, dict[str, bytes]]]] = field(default_factory=dict)
    listing: dict[str, dict[str, Any]] = field(default_factory=dict)
    statuses: dict[str, tuple[int, dict[str, str], object]] = field(default_factory=dict)
    served: dict[str, bytes] = field(default_factory=dict)
    breaks: dict[str, list[int]] = field(default_factory=dict)
    ignores_ranges: bool = False
    hold: threading.Event | None = None
    seen: list[Seen] = field(default_factory=list)
    reached_hold: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> HubServer:
        self._servers = {name: _Server(self, name) for name in ("hub", "cdn")}
        for server in self._servers.values():
            threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.hold is not None:
            self.hold.set()
        for server in self._servers.values():
            server.shutdown()
            server.server_close()

    @property
    def url(self) -> str:
        return self.url_of("hub")

    def url_of(self, host: str) -> str:
        return f"http://127.0.0.1:{self._servers[host].server_port}"

    def add(self, repo_id: str, directory: Path, revision: str = "main", commit: str = COMMIT, **more: bytes) -> None:
        """Publishes a directory."""
        files = {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}
        self.put(repo_id, {**files, **more}, revision, commit)

    def put(self, repo_id: str, files: dict[str, bytes], revision: str = "main", commit: str = COMMIT) -> None:
        """Publishes files, under the revision and under the commit."""
        found = self.repositories.setdefault(repo_id, {})
        found[revision] = found[commit] = (commit, files)

    def requests_for(self, name: str) -> list[Seen]:
        """The requests for the content of a file, as they reached the host that has it."""
        host = "cdn" if name.endswith(LARGE) else "hub"
        return [seen for seen in self.seen if seen.host == host and seen.path.endswith(f"/{name}")]


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, hub: HubServer, host: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.hub = hub
        self.host = host


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        hub, path = self.server.hub, unquote(urlsplit(self.path).path)
        headers = {key.lower(): value for key, value in self.headers.items()}
        hub.seen.append(Seen(self.server.host, path, headers))
        if path in hub.statuses:
            status, more, body = hub.statuses[path]
            self._json(status, body, more)
        elif path.startswith("/api/models/"):
            self._list(path)
        else:
            self._file(path)

    def _list(self, path: str) -> None:
        owner, name, _, *revision = path.removeprefix("/api/models/").split("/", 3)
        revisions = self.server.hub.repositories.get(f"{owner}/{name}")
        if revisions is None:
            self._json(401, {"error": "Invalid username or password."}, {})
        elif revision[0] not in revisions:
            self._json(404, {"error": "Invalid rev id"}, {"X-Error-Code": "RevisionNotFound"})
        else:
            commit, files = revisions[revision[0]]
            siblings = [self._entry(file, content) for file, content in files.items()]
            self._json(200, {"id": f"{owner}/{name}", "sha": commit, "siblings": siblings}, {})

    def _entry(self, name: str, content: bytes) -> dict[str, Any]:
        blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        entry: dict[str, Any] = {"rfilename": name, "size": len(content), "blobId": blob}
        if name.endswith(LARGE):
            sha256 = hashlib.sha256(content).hexdigest()
            entry["lfs"] = {"size": len(content), "sha256": sha256, "pointerSize": 130}
        return entry | self.server.hub.listing.get(name, {})

    def _file(self, path: str) -> None:
        hub = self.server.hub
        repo_id, _, rest = path.lstrip("/").removeprefix("cdn/").partition("/resolve/")
        revision, _, name = rest.partition("/")
        commit, files = hub.repositories.get(repo_id, {}).get(revision, ("", {}))
        if name not in files:
            self._json(404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound"})
        elif name.endswith(LARGE) and self.server.host == "hub":
            self.send_response(302)
            self.send_header("Location", f"{hub.url_of('cdn')}/cdn{self.path}")
            self.send_header("X-Repo-Commit", commit)
            self.send_header("X-Linked-Etag", f'"{hashlib.sha256(files[name]).hexdigest()}"')
            self.send_header("X-Linked-Size", str(len(files[name])))
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            self._send(name, hub.served.get(name, files[name]))

    def _send(self, name: str, content: bytes) -> None:
        hub, start = self.server.hub, 0
        if (asked := self.headers.get("Range")) and not hub.ignores_ranges:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            if start >= len(content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(content) - start))
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.end_headers()
        if breaks := hub.breaks.get(name):
            self.wfile.write(content[start : start + breaks.pop(0)])
            self.close_connection = True
            return
        if hub.hold is not None and name.endswith(LARGE):
            self.wfile.write(content[start:-1])
            self.wfile.flush()
            hub.reached_hold.set()
            hub.hold.wait(30)
            start = len(content) - 1
        self.wfile.write(content[start:])

    def _json(self, status: int, body: object, headers: dict[str, str]) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the test looks at `seen`."""
