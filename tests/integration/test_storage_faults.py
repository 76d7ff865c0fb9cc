"""The network between us and a real S3 server fails at the worst moment."""

from __future__ import annotations

import random
import socket
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from shared.errors import NotFound, PreconditionFailed, Unavailable
from shared.settings import Settings
from shared.storage.objects import ObjectStore


@contextmanager
def wire(settings: Settings, *faults: str, cut_after: int | None = None) -> Iterator[ObjectStore]:
    """A store that is reached over a wire which fails its first connections, one for each fault.

    `lost`: the server does what is asked and its answer is cut off; `once`: the connection ends
    after its first answer; a status line such as
    `409 Conflict`: the server never hears of it and this is answered. Later connections pass, and
    break after `cut_after` bytes of an answer.
    """
    host, port = settings.s3_endpoint.split(":")
    pending = list(faults)

    def serve(client: socket.socket) -> None:
        with client, suppress(OSError), socket.create_connection((host, int(port))) as server:
            fault = pending.pop(0) if pending else None
            if fault and fault not in ("lost", "once"):
                client.recv(2**16)
                client.sendall(refusal(fault))
                return
            threading.Thread(target=copy, args=(client, server), daemon=True).start()
            if fault == "lost":
                server.recv(2**16)
                client.shutdown(socket.SHUT_RDWR)
            else:
                copy(server, client, limit=2**16 if fault == "once" else cut_after)

    def accept() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        endpoint = f"127.0.0.1:{listener.getsockname()[1]}"
        yield ObjectStore.from_settings(settings.model_copy(update={"s3_endpoint": endpoint}))
        listener.shutdown(socket.SHUT_RDWR)


def copy(source: socket.socket, target: socket.socket, limit: int | None = None) -> None:
    with suppress(OSError):
        while data := source.recv(2**16):
            target.sendall(data[:limit])
            if limit is not None:
                break
        target.shutdown(socket.SHUT_RDWR)


def refusal(status: str) -> bytes:
    body = f"<Error><Code>{status[4:]}</Code><Message>no</Message></Error>".encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"Connection: close\r\n\r\n" + body


@pytest.fixture
def key(object_store: ObjectStore) -> str:
    """The bucket exists; a key that nobody used."""
    return f"trial-{uuid.uuid4()}"


def test_a_lost_answer_does_not_make_our_own_write_a_rival(settings: Settings, key: str) -> None:
    with wire(settings, "lost") as store:
        etag = store.put_if_absent(key, b"mine")
    with wire(settings, "lost") as store:
        assert store.put_if_match(key, b"next", etag) == store.stat(key).etag
    with wire(settings, "lost") as store, pytest.raises(PreconditionFailed):
        store.put_if_absent(key, b"other")


def test_a_conflict_is_tried_again(settings: Settings, key: str) -> None:
    first, second = "409 ConditionalRequestConflict", "409 OperationAborted"
    with wire(settings, first, "once", second) as store:  # between them we look what lies there
        etag = store.put_if_absent(key, b"mine")
    with wire(settings, first, second) as store:
        store.put_if_match(key, b"next", etag)
        assert store.get(key) == b"next"


def test_if_match_without_an_object_has_lost_also_on_aws(settings: Settings, key: str) -> None:
    with wire(settings, "404 NoSuchKey") as store, pytest.raises(PreconditionFailed):
        store.put_if_match(key, b"mine", "0" * 32)


def test_a_refusal_without_a_rival_is_tried_again(settings: Settings, key: str) -> None:
    with wire(settings, "412 PreconditionFailed") as store:
        etag = store.put_if_absent(key, b"before")
    with wire(settings, "412 PreconditionFailed") as store:
        store.put_if_match(key, b"after", etag)
        assert store.get(key) == b"after"


def test_a_busy_store_is_tried_again_and_then_unavailable(settings: Settings, key: str) -> None:
    with wire(settings, *["503 SlowDown"] * 2) as store:
        store.put(key, b"mine")
    with wire(settings, *["503 SlowDown"] * 9) as store, pytest.raises(Unavailable):
        store.get(key)


def test_refused_credentials_and_a_missing_bucket_are_named(settings: Settings, key: str) -> None:
    for status in ("403 AccessDenied", "404 NoSuchBucket"):
        with wire(settings, status) as store, pytest.raises(Unavailable, match=status[4:]):
            store.get(key)


def test_half_an_object_is_never_taken_for_the_whole(settings: Settings, key: str) -> None:
    data = random.Random(1).randbytes(10_000)
    with wire(settings) as store:
        store.put(key, data)
    with wire(settings, cut_after=6_000) as store:
        assert store.get(key) == data, "the rest is asked for"
        assert b"".join(store.stream(key)) == data
    with wire(settings, cut_after=1_000) as store:
        with pytest.raises(Unavailable):
            store.get(key)
        with pytest.raises(Unavailable):
            list(store.stream(key))


def test_an_answer_lost_again_and_again_is_unavailable(settings: Settings, key: str) -> None:
    with wire(settings, *["lost"] * 9) as store, pytest.raises(Unavailable):
        store.put_if_absent(key, b"mine")
    with wire(settings) as store:
        assert store.put_if_absent(key, b"mine"), "and the next try meets its own first one"
        with pytest.raises(NotFound):
            store.get(key + "-other")
