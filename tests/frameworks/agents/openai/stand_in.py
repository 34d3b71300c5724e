"""A stand-in for the API: HTTP over a unix socket, on a thread of the agent's. It says what it was asked, in capitals.

Not on 127.0.0.1: a policy of this version grants sockets of the kind AF_UNIX only (docs/frameworks.md).
"""

import http.server
import json
import socketserver
import threading

PATH = "/tmp/api.sock"


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path != "/v1/chat/completions" or self.headers["Authorization"] != "Bearer no-key":
            self.send_error(404)
            return
        text = asked["messages"][-1]["content"].upper()
        (self._stream if asked.get("stream") else self._whole)(asked["model"], text)

    def _whole(self, model: str, text: str) -> None:
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        body = {"id": "c1", "object": "chat.completion", "created": 0, "model": model, "choices": [choice]}
        whole = json.dumps(body | {"usage": usage}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(whole)))
        self.end_headers()
        self.wfile.write(whole)

    def _stream(self, model: str, text: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        for word in text.split(" "):
            choice = {"index": 0, "finish_reason": None, "delta": {"content": word}}
            body = {"id": "c1", "object": "chat.completion.chunk", "created": 0, "model": model, "choices": [choice]}
            self.wfile.write(b"data: " + json.dumps(body).encode() + b"\n\n")
        self.wfile.write(b"data: [DONE]\n\n")
        self.close_connection = True

    def address_string(self) -> str:
        return "the agent"  # a unix socket's peer has no address

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True


def start() -> None:
    """Listen from now on; the thread ends with the instance."""
    server = _Server(PATH, _Handler)
    threading.Thread(target=server.serve_forever, name="stand-in", daemon=True).start()
