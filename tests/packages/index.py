"""A package index of a test's own on this machine: PEP 503 over HTTP, and what a test may want it to do wrong."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.server
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Index:
    """Serves the files of a folder, whatever their names are."""

    port: int
    scheme: str
    asked: list[str] = field(default_factory=list)
    """paths, in their order"""

    @property
    def address(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}/simple"


@contextlib.contextmanager
def serve(
    folder: Path,
    *,
    login: str = "",
    elsewhere: str = "",
    silent: threading.Event | None = None,
    certificate: Path | None = None,
    until: Callable[[str], None] = lambda path: None,
) -> Iterator[Index]:
    """`until` is called with the path before each answer, and may wait.

    `login` is USER:PASSWORD; files are said to be at `elsewhere`; with `silent` no answer comes until it is set.

    `certificate` is a file with a certificate and its key: with it there is TLS.
    """
    wanted = f"Basic {base64.b64encode(login.encode()).decode()}" if login else ""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def _answer(self, *, body: bool) -> None:
            index.asked.append(self.path)
            until(self.path)
            if silent is not None:
                silent.wait(60)
            if wanted and self.headers["Authorization"] != wanted:
                self.send_response(401)
                self.send_header("WWW-Authenticate", 'Basic realm="packages"')
                self.end_headers()
                return
            parts = self.path.strip("/").split("/")
            content = self._list(parts[1]) if parts[0] == "simple" and len(parts) == 2 else self._file(parts[-1])
            self.send_response(404 if content is None else 200)
            self.send_header("Content-Type", "text/html" if parts[0] == "simple" else "application/octet-stream")
            self.send_header("Content-Length", str(len(content or b"")))
            self.end_headers()
            if body:
                self.wfile.write(content or b"")

        def _list(self, project: str) -> bytes | None:
            found = [file.name for file in sorted(folder.iterdir()) if file.name.partition("-")[0] == project]
            digests = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in found}
            links = "".join(f'<a href="{elsewhere}/files/{name}#sha256={digests[name]}">{name}</a>\n' for name in found)
            return f"<!DOCTYPE html><html><body>{links}</body></html>".encode() if found else None

        def _file(self, name: str) -> bytes | None:
            path = folder / name
            return path.read_bytes() if path.is_file() else None

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    index = Index(port=server.server_address[1], scheme="http" if certificate is None else "https")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield index
    finally:
        if silent is not None:
            silent.set()
        server.shutdown()
        thread.join()
        server.server_close()
