"""A web server for tests, on loopback, in a thread."""

import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = tuple[int, dict[str, str], bytes]


class Handler(BaseHTTPRequestHandler):
    """Serves what `pages` have for a path and, if one is sent, a login.

    Where the stated length is too large, the answer breaks off.
    """

    def do_GET(self) -> None:
        status, headers, body = self.server.pages.get(self.asked(), (404, {}, b""))  # type: ignore[attr-defined]
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            if value:
                self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            with contextlib.suppress(ConnectionError):  # the client has closed the connection
                self.wfile.write(body)

    do_HEAD = do_GET

    def asked(self) -> str:
        """Return the path, and what the client sends to log in with."""
        return " ".join([self.path, *self.headers.get_all("Authorization", [])])

    def log_message(self, *_args: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def serve(pages: dict[str, Answer]) -> Iterator[str]:
    """Serve these pages; give HOST:PORT."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.pages = pages  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def registry(name: str, tag: str, blobs: dict[str, bytes], manifest: dict[str, Any]) -> dict[str, Answer]:
    """Return the pages of a registry that has one image, by the OCI distribution specification."""
    text = json.dumps(manifest).encode()
    digest = "sha256:" + hashlib.sha256(text).hexdigest()
    answer = (200, {"Content-Type": manifest["mediaType"], "Docker-Content-Digest": digest}, text)
    pages: dict[str, Answer] = {f"/v2/{name}/blobs/sha256:{key}": (200, {}, data) for key, data in blobs.items()}
    return {"/v2/": (200, {}, b"{}"), f"/v2/{name}/manifests/{tag}": answer, f"/v2/{name}/manifests/{digest}": answer, **pages}
