"""ObjectStore against a real S3 server."""

from __future__ import annotations

import hashlib
import io
import random
import socket
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
from hypothesis import given
from hypothesis import settings as trials
from hypothesis import strategies as st

from shared.errors import (
    CorruptObject,
    InvalidInput,
    NotFound,
    PreconditionFailed,
    TooLarge,
    Unavailable,
    UnsafeStore,
)
from shared.settings import Settings
from shared.storage.objects import CHUNK_BYTES, PART_BYTES, ObjectStore

NUM_RIVALS = 16


@pytest.fixture
def prefix() -> str:
    return f"trial-{uuid.uuid4()}/"


def race(write: Callable[[int], object]) -> list[int]:
    """Let 16 threads write at once; the numbers of those that did not lose."""
    start = Barrier(NUM_RIVALS)

    def contend(number: int) -> bool:
        start.wait()
        try:
            write(number)
        except PreconditionFailed:
            return False
        return True

    with ThreadPoolExecutor(NUM_RIVALS) as pool:
        return [n for n, won in enumerate(pool.map(contend, range(NUM_RIVALS))) if won]


def test_an_object_comes_back_as_it_was(object_store: ObjectStore, prefix: str) -> None:
    key = prefix + "a"
    etag = object_store.put(key, b"one")
    assert object_store.get(key) == b"one"
    assert object_store.get_with_etag(key) == (b"one", etag)
    info = object_store.stat(key)
    assert (info.key, info.bytes, info.etag) == (key, 3, etag)
    assert info.modified_at.tzinfo is not None
    object_store.put(key, b"")
    assert object_store.get(key) == b""
    object_store.delete(key)
    object_store.delete(key)
    for read in (object_store.get, object_store.stat, object_store.stream):
        with pytest.raises(NotFound, match=key):
            read(key)


def test_a_read_is_bounded(object_store: ObjectStore, prefix: str) -> None:
    object_store.put(prefix + "a", b"x" * 100)
    assert len(object_store.get(prefix + "a", max_bytes=100)) == 100
    with pytest.raises(TooLarge):
        object_store.get(prefix + "a", max_bytes=99)
    assert object_store.get(prefix + "a", max_bytes=100), "the connection is still good"


def test_what_differs_from_its_manifest_is_not_loaded(
    object_store: ObjectStore, prefix: str
) -> None:
    key, data = prefix + "a", b"weights"
    sha256 = hashlib.sha256(data).hexdigest()
    object_store.put(key, data)
    assert object_store.get_verified(key, num_bytes=7, sha256=sha256) == data
    for other in (b"weightS", b"weight", b"weights!"):
        object_store.put(key, other)
        with pytest.raises(CorruptObject, match=key):
            object_store.get_verified(key, num_bytes=7, sha256=sha256)


def test_16_writers_race_for_an_absent_object(object_store: ObjectStore, prefix: str) -> None:
    for number in range(3):
        key = f"{prefix}{number}"
        winners = race(lambda n, key=key: object_store.put_if_absent(key, b"%d" % n))
        assert [object_store.get(key)] == [b"%d" % n for n in winners]


def test_16_writers_race_to_replace_an_object(object_store: ObjectStore, prefix: str) -> None:
    key = prefix + "a"
    etag = object_store.put(key, b"before")
    for _ in range(3):
        nonce = uuid.uuid4().bytes
        winners = race(
            lambda n, nonce=nonce, etag=etag: object_store.put_if_match(
                key, nonce + b"%d" % n, etag
            )
        )
        data, etag = object_store.get_with_etag(key)
        assert [data] == [nonce + b"%d" % n for n in winners]


def test_a_conditional_write_may_be_repeated(object_store: ObjectStore, prefix: str) -> None:
    key = prefix + "a"
    first = object_store.put_if_absent(key, b"mine")
    assert object_store.put_if_absent(key, b"mine") == first
    with pytest.raises(PreconditionFailed):
        object_store.put_if_absent(key, b"other")
    second = object_store.put_if_match(key, b"next", first)
    assert object_store.put_if_match(key, b"next", first) == second
    with pytest.raises(PreconditionFailed):
        object_store.put_if_match(key, b"late", first)
    object_store.delete(key)
    with pytest.raises(PreconditionFailed):
        object_store.put_if_match(key, b"late", second)
    with pytest.raises(NotFound):
        object_store.get(key)


def test_16_updates_of_one_object_are_all_in_it(object_store: ObjectStore, prefix: str) -> None:
    def append(number: int) -> None:
        object_store.update(prefix + "a", lambda present: (present or b"") + b"%x" % number)

    race(append)
    assert sorted(object_store.get(prefix + "a")) == sorted(b"0123456789abcdef")


def test_a_stream_of_unknown_length_is_stored(object_store: ObjectStore, prefix: str) -> None:
    for length in (0, 1, PART_BYTES, PART_BYTES + 1, 2 * PART_BYTES + 12_345):
        data = random.Random(length).randbytes(length)
        written = object_store.put_stream(prefix + "a", io.BytesIO(data), max_bytes=length)
        assert written == (length, hashlib.sha256(data).hexdigest())
        assert b"".join(object_store.stream(prefix + "a")) == data


def test_bytes_larger_than_a_part_are_one_object(object_store: ObjectStore, prefix: str) -> None:
    data = random.Random(1).randbytes(4 * PART_BYTES + 1)
    etag = object_store.put(prefix + "a", data)
    assert object_store.get(prefix + "a") == data
    assert [(info.bytes, info.etag) for info in object_store.list(prefix)] == [(len(data), etag)]


@pytest.mark.parametrize("max_bytes", [10, PART_BYTES + 10])
def test_a_stream_that_is_too_long_leaves_nothing(
    object_store: ObjectStore, prefix: str, max_bytes: int
) -> None:
    with pytest.raises(TooLarge):
        object_store.put_stream(prefix + "a", io.BytesIO(bytes(max_bytes + 1)), max_bytes=max_bytes)
    assert list(object_store.list(prefix)) == []


def test_a_stream_that_breaks_leaves_nothing(object_store: ObjectStore, prefix: str) -> None:
    class Breaking(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            data = super().read(size)
            if not data:
                raise ConnectionResetError("the client went away")
            return data

    with pytest.raises(ConnectionResetError):
        object_store.put_stream(prefix + "a", Breaking(bytes(PART_BYTES + 5)), max_bytes=2**30)
    assert list(object_store.list(prefix)) == []


def test_a_stream_comes_in_chunks_and_may_be_left_early(
    object_store: ObjectStore, prefix: str
) -> None:
    object_store.put(prefix + "a", bytes(3 * CHUNK_BYTES))
    for _ in range(100):  # more than the pool holds
        assert CHUNK_BYTES <= len(next(object_store.stream(prefix + "a"))) < 3 * CHUNK_BYTES
    assert sum(map(len, object_store.stream(prefix + "a"))) == 3 * CHUNK_BYTES


def test_a_download_is_whole_or_not_at_all(
    object_store: ObjectStore, prefix: str, tmp_path: Path
) -> None:
    object_store.put(prefix + "a", b"picture")
    object_store.download(prefix + "a", tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes() == b"picture"
    with pytest.raises(NotFound):
        object_store.download(prefix + "b", tmp_path / "b.png")
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_a_listing_goes_beyond_a_page_and_resumes(object_store: ObjectStore, prefix: str) -> None:
    wanted = [f"{prefix}part-{number:04d}" for number in range(1005)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: object_store.put(key, b"x"), wanted))
    assert [info.key for info in object_store.list(prefix)] == wanted
    rest = object_store.list(prefix, start_after=wanted[1001])
    assert [info.key for info in rest] == wanted[1002:]
    assert next(object_store.list(prefix)).bytes == 1


def test_folders_are_the_names_right_below(object_store: ObjectStore, prefix: str) -> None:
    for key in ("a/1", "a/2", "a-b/1/2", "c"):
        object_store.put(prefix + key, b"x")
    assert sorted(object_store.folders(prefix)) == ["a", "a-b"]


@trials(max_examples=60)
@given(text=st.text(max_size=40))
def test_any_key_is_stored_as_it_is_or_refused(object_store: ObjectStore, text: str) -> None:
    prefix = f"trial-{uuid.uuid4()}/"
    key = prefix + text + "x"
    try:
        object_store.put(key, text.encode())
    except (InvalidInput, UnicodeEncodeError):
        return
    assert object_store.get(key) == text.encode()
    assert [info.key for info in object_store.list(prefix)] == [key]


@pytest.mark.parametrize("key", ["../a", "a/../../b", "a\x00b", "/a", "a\\b"])
def test_an_unsafe_key_is_refused_everywhere(object_store: ObjectStore, key: str) -> None:
    for use in (
        lambda: object_store.put(key, b""),
        lambda: object_store.put_if_absent(key, b""),
        lambda: object_store.put_if_match(key, b"", "0"),
        lambda: object_store.put_stream(key, io.BytesIO(), max_bytes=1),
        lambda: object_store.get(key),
        lambda: object_store.stream(key),
        lambda: list(object_store.list(key)),
        lambda: object_store.delete(key),
        lambda: object_store.stat(key),
    ):
        with pytest.raises(InvalidInput):
            use()


def test_the_probe_passes_and_leaves_nothing(object_store: ObjectStore) -> None:
    object_store.probe()
    assert list(object_store.list("probe/")) == []


def test_the_probe_refuses_a_store_that_lets_two_win(object_store: ObjectStore) -> None:
    class Careless(ObjectStore):
        """The same server, had it checked before it writes and not while."""

        def put_if_absent(self, key: str, data: bytes) -> str:
            return self.put(key, data)

    careless = Careless(object_store._client)
    with pytest.raises(UnsafeStore, match="2 of them won"):
        careless.probe()


def test_a_bucket_is_made_once_in_any_region(settings: Settings) -> None:
    for region in ("us-east-1", "eu-central-1"):
        theirs = {"s3_region": region, "s3_bucket": f"trial-{uuid.uuid4()}"}
        store = ObjectStore.from_settings(settings.model_copy(update=theirs))
        with pytest.raises(Unavailable, match="NoSuchBucket"):
            store.get("a")
        store.ensure_bucket()
        store.ensure_bucket()
        with pytest.raises(NotFound):
            store.get("a")


def test_the_environment_of_another_tool_changes_nothing(
    settings: Settings, object_store: ObjectStore, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "AWS_ACCESS_KEY_ID": "somebody",
        "AWS_SESSION_TOKEN": "else",
        "AWS_SKIP_SIGNATURE": "true",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
        "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:1",
        "AWS_BUCKET": "theirs",
        "AWS_REGION": "eu-north-1",
        "AWS_CONDITIONAL_PUT": "disabled",
        "HTTP_PROXY": "http://127.0.0.1:1",
        "http_proxy": "http://127.0.0.1:1",
        "ALL_PROXY": "http://127.0.0.1:1",
    }.items():
        monkeypatch.setenv(name, value)
    store = ObjectStore.from_settings(settings)
    store.ensure_bucket()
    store.put_if_absent(prefix + "a", b"ours")
    assert object_store.get(prefix + "a") == b"ours"


def test_a_store_that_is_down_is_unavailable_soon() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # taken, and nobody listens
        store = ObjectStore.from_settings(
            Settings(s3_endpoint=f"127.0.0.1:{closed.getsockname()[1]}")
        )
        for use in (
            store.ensure_bucket,
            store.probe,
            lambda: store.put("a", b""),
            lambda: store.put_if_absent("a", b""),
            lambda: store.put_stream("a", io.BytesIO(b"x"), max_bytes=10),
            lambda: store.get("a"),
            lambda: list(store.list("a")),
        ):
            with pytest.raises(Unavailable, match="Connection refused") as raised:
                use()
            assert raised.value.retry_after_s
            assert not isinstance(raised.value, UnsafeStore)
