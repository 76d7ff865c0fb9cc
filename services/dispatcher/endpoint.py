"""The dispatcher's only door: /metrics and /healthz over HTTP, for Prometheus and for probes.

It knows what is asked for and who answers, nothing of what is counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

from services.dispatcher.telemetry import Telemetry
from shared.exposition import MEDIA_TYPE

TIMEOUT_S = 10.0
"""A client that says nothing for so long is cut off."""


@contextmanager
def endpoint(host: str, port: int, telemetry: Telemetry) -> Iterator[int]:
    """Serve until the block ends; gives the port (0 takes a free one). Raises OSError."""

    class Handler(BaseHTTPRequestHandler):
        timeout = TIMEOUT_S
        server_version = "elmyr"
        sys_version = ""

        def do_GET(self) -> None:
            match self.path:
                case "/metrics":
                    self._answer(HTTPStatus.OK, telemetry.exposition(), MEDIA_TYPE)
                case "/healthz" if telemetry.turns:
                    self._answer(HTTPStatus.OK, b"ok\n", "text/plain")
                case "/healthz":
                    self._answer(HTTPStatus.SERVICE_UNAVAILABLE, b"stalled\n", "text/plain")
                case _:
                    self._answer(HTTPStatus.NOT_FOUND, b"", "text/plain")

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing: probes ask every few seconds."""

        def _answer(self, status: HTTPStatus, body: bytes, media_type: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", media_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer((host, port), Handler)
    thread = Thread(target=server.serve_forever, name="endpoint", daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
