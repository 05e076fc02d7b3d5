"""A hub on loopback: it speaks the file protocol of huggingface.co to the real client.

Files are served at `/{repo}/resolve/{revision}/{file}` with commit, ETag and size headers; large files redirect to
another path, as the hub redirects to its CDN. What a repository refuses, it refuses as the hub does: with a status and
an `X-Error-Code`.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REFUSALS = {
    "gated": (403, "GatedRepo"),
    "private": (401, "RepoNotFound"),
    "broken": (500, ""),
}


@dataclass
class Repo:
    """A repository: files by name, and how it treats who asks."""

    files: dict[str, bytes] = field(default_factory=dict)
    refuses: str | None = None  # a key of REFUSALS
    token: str | None = None  # opens a repository that refuses
    revisions: tuple[str, ...] = ("main", COMMIT)
    commit: str = COMMIT  # of its files as they are now
    redirects: bool = False  # large files lie elsewhere
    delay: float = 0.0  # seconds before each answer
    cut: bool = False  # the connection ends in the middle of each file
    drip: float = 0.0  # seconds before each byte of a file


@dataclass
class Hub:
    """The running server."""

    endpoint: str
    repos: dict[str, Repo]
    requests: list[str] = field(default_factory=list)  # "GET owner/name/file" in order


@contextmanager
def serve(repos: dict[str, Repo]) -> Iterator[Hub]:
    """Serve `repos` until the block ends."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    hub = Hub(f"http://127.0.0.1:{server.server_port}", repos)
    server.hub = hub
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self.answer()

    def do_GET(self):
        self.answer()

    def answer(self):
        path = unquote(self.path.partition("?")[0]).strip("/")
        if path.startswith("cdn/"):
            self.send_file(self.server.hub.repos[path.removeprefix("cdn/").rpartition("/")[0]], path.rpartition("/")[2])
        elif path.startswith("api/models/"):
            self.answer_about(path.removeprefix("api/models/"))
        else:
            repo, _, rest = path.partition("/resolve/")
            revision, _, file = rest.partition("/")
            self.answer_for(repo, revision, file)

    def answer_for(self, name, revision, file):
        repo = self.repo(name, revision)
        if repo is None:
            return
        self.server.hub.requests.append(f"{self.command} {name}/{file}")
        if file not in repo.files:
            self.refuse(404, "EntryNotFound")
        elif repo.redirects and file.endswith(".safetensors"):
            self.send_response(302)
            self.describe(repo, repo.files[file], linked=True)
            self.send_header("Location", f"{self.server.hub.endpoint}/cdn/{name}/{file}")
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            self.send_file(repo, file)

    def answer_about(self, rest):
        """What a snapshot asks: the commit of a revision and its list of files."""
        name, _, revision = rest.replace("/tree/", "/revision/").partition("/revision/")
        repo = self.repo(name, revision or "main")
        if repo is None:
            return
        listed = [
            {"type": "file", "path": file, "rfilename": file, "size": len(data), "oid": etag(data)} for file, data in repo.files.items()
        ]
        self.send_json(listed if "/tree/" in rest else {"id": name, "sha": repo.commit, "siblings": listed})

    def repo(self, name, revision):
        """The repository, or None after it was refused."""
        repo = self.server.hub.repos.get(name)
        if repo is None:
            self.refuse(401, "RepoNotFound")
            return None
        time.sleep(repo.delay)
        if repo.refuses is not None and (repo.token is None or self.headers.get("Authorization") != f"Bearer {repo.token}"):
            self.refuse(*REFUSALS[repo.refuses])
            return None
        if revision not in repo.revisions:
            self.refuse(404, "RevisionNotFound")
            return None
        return repo

    def send_file(self, repo, file):
        data = repo.files[file]
        self.send_response(200)
        self.describe(repo, data)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command == "GET" and repo.drip:
            with suppress(OSError):  # whoever asked has gone
                for byte in data:
                    time.sleep(repo.drip)
                    self.wfile.write(bytes([byte]))
                    self.wfile.flush()
        elif self.command == "GET":
            self.wfile.write(data[: len(data) // 2] if repo.cut else data)
            self.close_connection = self.close_connection or repo.cut

    def describe(self, repo, data, linked=False):
        self.send_header("X-Repo-Commit", repo.commit)
        self.send_header("ETag", f'"{etag(data)}"')
        if linked:
            self.send_header("X-Linked-Etag", f'"{etag(data)}"')
            self.send_header("X-Linked-Size", str(len(data)))

    def send_json(self, value):
        data = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def refuse(self, status, code):
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        if code == "EntryNotFound":
            self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *arguments):
        pass


def etag(data: bytes) -> str:
    """As git names a blob's content: any stable name will do."""
    return hashlib.sha1(data, usedforsecurity=False).hexdigest()
