"""What the real API does not do on demand: busy answers, cut connections, torn streams.

A small HTTP server plays one step of a script for each request.
"""

from __future__ import annotations

import json
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from services.client import Client, Unreachable
from services.client.transport import CHUNK_BYTES
from shared.errors import ElmyrError, Forbidden, Unavailable
from shared.schemas.events import EventType

KEY = "elm_a-secret-that-must-not-show"
JOB = {
    "id": "job-1",
    "kind": "train",
    "owner": "o",
    "state": "succeeded",
    "spec": {},
    "priority": 0,
    "max_attempts": 3,
    "created_at": "2026-01-01T00:00:00Z",
    "updated_at": "2026-01-01T00:00:00Z",
}


@dataclass
class Asked:
    """A request as the server saw it."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Script:
    """The steps still to play, and what was asked."""

    url: str
    steps: list[Callable[[BaseHTTPRequestHandler], None]]
    asked: list[Asked] = field(default_factory=list)


@contextmanager
def scripted(*steps: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[Script]:
    """Serve until the block ends; every step must have been played by then."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def play(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            script.asked.append(Asked(self.command, self.path, headers, self.rfile.read(length)))
            script.steps.pop(0)(self)

        def log_message(self, format: str, *args: object) -> None:
            pass

    for method in ("GET", "POST", "PUT"):
        setattr(Handler, f"do_{method}", Handler.play)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        script = Script(f"http://127.0.0.1:{server.server_port}", list(steps))
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield script
        finally:
            server.shutdown()
    assert script.steps == []


def answer(
    status: int, body: bytes, *, announced: int | None = None, **headers: str
) -> Callable[[BaseHTTPRequestHandler], None]:
    """An answer; when more bytes are announced than sent, the connection breaks inside."""

    def play(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        handler.send_header("Content-Length", str(announced or len(body)))
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)
        handler.close_connection = announced is not None

    return play


def hang_up(handler: BaseHTTPRequestHandler) -> None:
    """The request was read, and no answer comes."""
    handler.close_connection = True


def stream(*frames: str, whole: bool = True) -> Callable[[BaseHTTPRequestHandler], None]:
    """Server-sent events in chunks; without the last chunk the connection is cut."""

    def play(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream; charset=utf-8")
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for frame in frames:
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(frame.encode()), frame.encode()))
        if whole:
            handler.wfile.write(b"0\r\n\r\n")
        handler.close_connection = True

    return play


def frame(id_: str, type_: str, **data: object) -> str:
    return f"id: {id_}\nevent: {type_}\ndata: {json.dumps(data)}\n\n"


OK = answer(200, json.dumps(JOB).encode(), Content_Type="application/json")
BUSY = answer(
    503,
    json.dumps({"code": "UNAVAILABLE", "detail": "the queue is full", "request_id": "r1"}).encode(),
    Retry_After="1",
)
SPEC = {"dataset": "garments", "model": "tailor"}


def test_a_submit_is_repeated_under_the_same_key_until_it_is_answered() -> None:
    gateway = answer(502, b"<h1>Bad Gateway</h1>")
    with scripted(BUSY, gateway, hang_up, OK) as script, Client(script.url, api_key=KEY) as client:
        assert client.submit("train", SPEC).id == "job-1"
    keys = {asked.headers["idempotency-key"] for asked in script.asked}
    bodies = {asked.body for asked in script.asked}
    assert (len(script.asked), len(keys), len(bodies)) == (4, 1, 1)


def test_every_post_has_a_key_of_its_own() -> None:
    with scripted(OK, OK, OK) as script, Client(script.url, api_key=KEY) as client:
        client.submit("train", SPEC)
        client.submit("train", SPEC)
        client.cancel("job-1")
    assert len({asked.headers["idempotency-key"] for asked in script.asked}) == 3


def test_what_does_not_pass_is_not_repeated() -> None:
    refused = answer(403, json.dumps({"code": "FORBIDDEN", "detail": "read only"}).encode())
    with (
        scripted(refused) as script,
        Client(script.url, api_key=KEY) as client,
        pytest.raises(Forbidden, match="read only"),
    ):
        client.submit("train", SPEC)


def test_a_wait_longer_than_our_patience_is_an_error_at_once() -> None:
    later = answer(503, b"", Retry_After="3600")
    with (
        scripted(later) as script,
        Client(script.url, api_key=KEY) as client,
        pytest.raises(Unavailable) as caught,
    ):
        client.job("job-1")
    assert caught.value.retry_after_s == 3600


def test_nobody_there_says_so() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
    with Client(url) as client, pytest.raises(Unreachable, match="elmyr up"):
        client.job("job-1")


def test_redirects_are_not_followed_so_that_the_key_stays_here() -> None:
    with (
        scripted(answer(307, b"", Location="http://elsewhere.example/")) as script,
        Client(script.url, api_key=KEY) as client,
        pytest.raises(Exception, match="answered 307"),
    ):
        client.job("job-1")


def test_an_upload_is_packed_anew_for_each_try(tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(bytes(CHUNK_BYTES + 1))
    with scripted(BUSY, hang_up, OK) as script, Client(script.url, api_key=KEY) as client:
        client.push_dataset("garments", tmp_path)
    bodies = {asked.body for asked in script.asked}
    assert (len(script.asked), len(bodies)) == (3, 1)
    assert len(bodies.pop()) == int(script.asked[0].headers["content-length"])


def test_a_torn_download_starts_again_and_leaves_only_the_whole_file(tmp_path: Path) -> None:
    content = b"picture" * 1000
    torn = answer(200, content[:100], announced=len(content))
    with scripted(torn, answer(200, content)) as script, Client(script.url, api_key=KEY) as client:
        assert client.download("/v1/jobs/job-1/samples/0", tmp_path / "0.png") == len(content)
    assert (tmp_path / "0.png").read_bytes() == content
    assert [path.name for path in tmp_path.iterdir()] == ["0.png"]


def test_a_download_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    (tmp_path / "0.png").write_bytes(b"old")
    refused = answer(403, json.dumps({"code": "FORBIDDEN", "detail": "no"}).encode())
    with (
        scripted(refused) as script,
        Client(script.url, api_key=KEY) as client,
        pytest.raises(Forbidden),
    ):
        client.download("/v1/jobs/job-1/samples/0", tmp_path / "0.png")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]


def test_a_cut_stream_goes_on_behind_the_last_whole_event() -> None:
    metric, done = frame("2-0", "metric", kimg=1), frame("3-0", "done", state="succeeded")
    steps = (
        stream(frame("1-0", "state", state="queued"), metric[:20], whole=False),
        BUSY,
        hang_up,
        stream(": a comment\n\n", metric, frame("2-1", "news-of-a-later-server"), whole=False),
        stream(done),
    )
    with scripted(*steps) as script, Client(script.url, api_key=KEY) as client:
        events = list(client.events("job-1"))
    assert [(e.id, e.type) for e in events] == [
        ("1-0", EventType.STATE),
        ("2-0", EventType.METRIC),
        ("3-0", EventType.DONE),
    ]
    asked = [asked.headers.get("last-event-id") for asked in script.asked]
    assert asked == [None, "1-0", "1-0", "1-0", "2-0"]


def test_a_stream_that_ends_without_the_end_of_the_job_is_taken_up_again() -> None:
    steps = (stream(frame("1-0", "state", state="queued")), stream(frame("2-0", "done")))
    with scripted(*steps) as script, Client(script.url, api_key=KEY) as client:
        assert [event.id for event in client.events("job-1")] == ["1-0", "2-0"]


def test_behind_the_last_event_of_an_ended_job_there_is_nothing() -> None:
    with scripted(stream(), OK) as script, Client(script.url, api_key=KEY) as client:
        assert list(client.events("job-1", after="9-0")) == []


def test_what_is_no_event_stream_is_not_asked_again() -> None:
    with (
        scripted(OK) as script,
        Client(script.url, api_key=KEY) as client,
        pytest.raises(ElmyrError, match="no stream of events"),
    ):
        list(client.events("job-1"))


def test_the_key_is_sent_and_never_shown(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with scripted(BUSY, hang_up, OK) as script, Client(script.url, api_key=KEY) as client:
        client.job("job-1")
        shown = f"{client!r} {vars(client)} {client.connection}"
    assert {asked.headers["authorization"] for asked in script.asked} == {f"Bearer {KEY}"}
    assert KEY not in caplog.text + shown


def test_serving_is_not_told_the_key() -> None:
    with (
        scripted(BUSY, answer(200, b"picture", Content_Type="image/png")) as script,
        Client("http://127.0.0.1:1", serve_url=script.url, api_key=KEY) as client,
    ):
        assert client.generate("tailor", seed=1) == b"picture"
    assert all("authorization" not in asked.headers for asked in script.asked)
    assert json.loads(script.asked[1].body) == {
        "n": 1,
        "seed": 1,
        "truncation": 1.0,
        "format": "png",
    }
