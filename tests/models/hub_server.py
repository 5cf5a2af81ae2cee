"""A local server that answers as the hub does, for one repository and three refusals."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REFUSALS = {
    "someone/gated": (403, "GatedRepo"),
    "someone/private": (404, "RepoNotFound"),
    "someone/no-revision": (404, "RevisionNotFound"),
}


@contextmanager
def serve(files: Path, name: str, fetched: list[str]) -> Iterator[str]:
    """Serve the files of a directory as the repository `name`; yields the address of the hub."""

    class Hub(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.split("?")[0]
            for refused, (code, reason) in REFUSALS.items():
                if refused in path:
                    return self.answer(code, b"", {"X-Error-Code": reason})
            if path.startswith(f"/api/models/{name}/tree/"):
                return self.answer_json(
                    [
                        {"type": "file", "path": file.name, "size": file.stat().st_size, "oid": "0"}
                        for file in sorted(files.iterdir())
                    ]
                )
            if path.startswith(f"/api/models/{name}"):
                siblings = [{"rfilename": file.name} for file in sorted(files.iterdir())]
                return self.answer_json({"id": name, "sha": COMMIT, "siblings": siblings})
            if path.startswith(f"/{name}/resolve/{COMMIT}/"):
                content = (files / path.rsplit("/", 1)[1]).read_bytes()
                if self.command == "GET":
                    fetched.append(path.rsplit("/", 1)[1])
                etag = hashlib.sha1(content, usedforsecurity=False).hexdigest()
                return self.answer(200, content, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT})
            return self.answer(404, b"", {"X-Error-Code": "EntryNotFound"})

        do_HEAD = do_GET

        def answer_json(self, content: object) -> None:
            self.answer(200, json.dumps(content).encode(), {"Content-Type": "application/json"})

        def answer(self, code: int, content: bytes, headers: dict[str, str]) -> None:
            self.send_response(code)
            for key, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        def log_message(self, *args: object) -> None:
            pass

    hub = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=hub.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{hub.server_port}"
    finally:
        hub.shutdown()
        thread.join()
        hub.server_close()
