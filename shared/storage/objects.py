"""Object storage: the only file that speaks to S3.

Small objects are bytes in, bytes out; large ones are streams. Conditional writes (If-None-Match,
If-Match) decide every race of Elmyr, so `probe` refuses a store on which they do not hold. What the
objects mean is not known here: see runs.py, datasets.py and registry.py. A store may be shared by
threads, never by a fork.
"""

from __future__ import annotations

import hashlib
import io
import random
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import urllib3
from minio import Minio
from minio.error import MinioException, S3Error

from shared.errors import (
    Conflict,
    CorruptObject,
    ElmyrError,
    NotFound,
    PreconditionFailed,
    TooLarge,
    Unavailable,
    UnsafeStore,
)
from shared.settings import Settings
from shared.storage import keys

MAX_OBJECT_BYTES = 64 * 2**20
CHUNK_BYTES = 256 * 2**10
PART_BYTES = 8 * 2**20
MAX_PARTS = 10_000  # S3's own limit
MAX_CONNECTIONS = 64  # kept open; a burst may open more
NUM_CONFLICT_RETRIES = 5
MAX_LOST_RACES = 100  # every loss means that somebody else won
PROBE_ROUNDS = 8
RETRY_AFTER_S = 2.0
JITTER = random.SystemRandom()

MISSING = frozenset({"NoSuchKey", "NoSuchVersion", "NoSuchUpload"})


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """What a listing says about an object. `etag` is bare (without quotes)."""

    key: str
    bytes: int
    etag: str
    modified_at: datetime


class ObjectStore:
    """One bucket.

    Every method raises Unavailable when the store refuses us or does not answer (no connection: in
    1 s; a silent host: 10 s; a silent server: 30 s), and InvalidInput for a key that could leave
    its prefix.
    """

    def __init__(self, client: Minio, bucket: str) -> None:
        self._client: Any = client
        self._bucket = bucket

    @classmethod
    def from_settings(cls, settings: Settings) -> ObjectStore:
        """The bucket that the settings name; nothing is sent yet."""
        http = urllib3.PoolManager(
            maxsize=MAX_CONNECTIONS,
            # `connect` is also the time that sending one part may take: 8 MiB at 1.7 MB/s.
            timeout=urllib3.Timeout(connect=5, read=15),
            retries=urllib3.Retry(
                total=3,
                connect=1,
                read=1,
                backoff_factor=0.1,
                status_forcelist=(500, 502, 503, 504),
                respect_retry_after_header=False,  # a server must not choose how long we hang
            ),
        )
        client = Minio(
            settings.s3_endpoint,
            access_key=settings.s3_access_key.get_secret_value() or None,
            secret_key=settings.s3_secret_key.get_secret_value() or None,
            secure=settings.s3_secure,
            region=settings.s3_region,
            http_client=http,
        )
        return cls(client, settings.s3_bucket)

    def ensure_bucket(self) -> None:
        """Make the bucket if it is not there; several processes may do so at once."""
        with _elmyr_errors(self._bucket):
            if not self._client.bucket_exists(self._bucket):
                try:
                    self._client.make_bucket(self._bucket)
                except S3Error as error:
                    if error.code not in ("BucketAlreadyOwnedByYou", "BucketAlreadyExists"):
                        raise

    def probe(self) -> None:
        """Race two writers for one object, eight times by each condition; takes about 0.2 s.

        Raises UnsafeStore: a race did not end with one winner and the winner's bytes.
        """
        key = f"probe/{uuid.uuid4()}"
        try:
            for _ in range(PROBE_ROUNDS):
                self._race(key, "If-None-Match", self.put_if_absent)
                etag = self.stat(key).etag
                self._race(key, "If-Match", partial(self.put_if_match, etag=etag))
                self.delete(key)
        finally:
            self.delete(key)

    def check(self) -> None:
        """Raises Unavailable when the store does not answer."""
        next(self.list("readyz/"), None)

    # Writing

    def put(self, key: str, data: bytes, *, content_type: str = "application/octet-stream") -> str:
        """Write an object, replacing what is there; returns its ETag."""
        if len(data) <= PART_BYTES:
            return self._put(key, data, {"Content-Type": content_type})
        with _elmyr_errors(key):
            written = self._client.put_object(
                self._bucket,
                keys.checked(key),
                io.BytesIO(data),
                length=len(data),
                content_type=content_type,
                part_size=PART_BYTES,
            )
        return str(written.etag)

    def put_if_absent(self, key: str, data: bytes) -> str:
        """Write an object unless the key exists; returns its ETag.

        An object that already holds these very bytes is success: a retried request meets its own
        first try. Writers who race must therefore write different bytes (a nonce).

        Raises PreconditionFailed: the key holds other bytes.
        """
        return self._put_conditionally(key, data, {"If-None-Match": "*"})

    def put_if_match(self, key: str, data: bytes, etag: str) -> str:
        """Replace an object whose ETag is still `etag`; returns the new ETag.

        An object that already holds these very bytes is success, as in `put_if_absent`.

        Raises PreconditionFailed: the object changed, or is gone.
        """
        return self._put_conditionally(key, data, {"If-Match": etag})

    def update(self, key: str, change: Callable[[bytes | None], bytes]) -> bytes:
        """Read, change and write back an object, again and again until nobody came between.

        `change` gets the present bytes (None: no object yet) and returns the new ones; the present
        bytes mean that there is nothing to do, and an error that it raises ends the update.
        Returns the bytes that hold.
        """
        for _ in range(MAX_LOST_RACES):
            try:
                present, etag = self.get_with_etag(key)
            except NotFound:
                present, etag = None, ""
            data = change(present)
            try:
                if present is None:
                    self.put_if_absent(key, data)
                elif data != present:
                    self.put_if_match(key, data, etag)
            except PreconditionFailed:
                continue
            return data
        raise Unavailable(f"object {key} is changed without end", retry_after_s=RETRY_AFTER_S)

    def put_stream(self, key: str, stream: BinaryIO, *, max_bytes: int) -> tuple[int, str]:
        """Write a stream of unknown length, with a few parts of 8 MiB of it in memory.

        Returns (bytes, sha256 in hex). When it fails the key is as it was before.

        Raises TooLarge: the stream holds more than `max_bytes`. What reading it raises passes.
        """
        reader = _MeasuredReader(stream, max_bytes=max_bytes)
        with _elmyr_errors(key):
            self._client.put_object(
                self._bucket,
                keys.checked(key),
                reader,
                length=-1,
                part_size=max(PART_BYTES, max_bytes // MAX_PARTS + 1),
                num_parallel_uploads=1,
            )
        return reader.num_bytes, reader.sha256.hexdigest()

    def delete(self, key: str) -> None:
        """Delete an object; one that is not there is fine."""
        with suppress(NotFound), _elmyr_errors(key):
            self._client.remove_object(self._bucket, keys.checked(key))

    # Reading

    def get(self, key: str, *, max_bytes: int = MAX_OBJECT_BYTES) -> bytes:
        """The whole object. Raises NotFound; TooLarge beyond `max_bytes`, before it is read."""
        return self._get(key, max_bytes)[0]

    def get_with_etag(self, key: str) -> tuple[bytes, str]:
        """The whole object and the ETag that `put_if_match` takes. Raises NotFound."""
        return self._get(key, MAX_OBJECT_BYTES)

    def get_verified(self, key: str, *, sha256: str, num_bytes: int | None = None) -> bytes:
        """The whole object, held against what its manifest says.

        Raises CorruptObject when digest (hex) or size differ; NotFound.
        """
        try:
            data = self.get(key, max_bytes=MAX_OBJECT_BYTES if num_bytes is None else num_bytes)
        except TooLarge as error:
            raise CorruptObject(f"object {key} is larger than its manifest says") from error
        if num_bytes not in (None, len(data)) or hashlib.sha256(data).hexdigest() != sha256:
            raise CorruptObject(f"object {key} is not what its manifest says: it is not loaded")
        return data

    def stream(self, key: str) -> Iterator[bytes]:
        """The object in chunks of at most 256 KiB.

        Raises NotFound at the call, before the first chunk is asked for.
        """
        response = self._open(key)

        def chunks() -> Iterator[bytes]:
            try:
                with _elmyr_errors(key):
                    yield from response.stream(CHUNK_BYTES)
            finally:
                # Half read, it cannot go back to the pool.
                response.close()
                response.release_conn()

        return chunks()

    def download(self, key: str, path: Path) -> None:
        """Write the object to `path`, which appears whole or not at all. Raises NotFound."""
        unfinished = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        try:
            with unfinished.open("wb") as file:
                for chunk in self.stream(key):
                    file.write(chunk)
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)

    def list(self, prefix: str, *, start_after: str | None = None) -> Iterator[ObjectInfo]:
        """The objects under `prefix`, lazily, by key (SeaweedFS: `/` sorts before all else)."""
        with _elmyr_errors(prefix):
            for found in self._client.list_objects(
                self._bucket, keys.checked(prefix), recursive=True, start_after=start_after
            ):
                yield ObjectInfo(
                    found.object_name, found.size, _bare(found.etag), found.last_modified
                )

    def folders(self, prefix: str) -> Iterator[str]:
        """The names right under `prefix` (which ends in `/`) that have objects below them."""
        with _elmyr_errors(prefix):
            for found in self._client.list_objects(self._bucket, keys.checked(prefix)):
                if found.is_dir:
                    yield found.object_name.removeprefix(prefix).rstrip("/")

    def stat(self, key: str) -> ObjectInfo:
        """Size, ETag and time of an object. Raises NotFound."""
        with _elmyr_errors(key):
            found = self._client.stat_object(self._bucket, keys.checked(key))
        return ObjectInfo(key, found.size, _bare(found.etag), found.last_modified)

    # The parts

    def _race(self, key: str, condition: str, write: Callable[[str, bytes], str]) -> None:
        start = threading.Barrier(2)

        def contend(data: bytes) -> bool:
            start.wait()
            try:
                write(key, data)
            except PreconditionFailed:
                return False
            return True

        rivals = [uuid.uuid4().bytes for _ in range(2)]
        with ThreadPoolExecutor(len(rivals)) as pool:
            winners = [
                data for data, won in zip(rivals, pool.map(contend, rivals), strict=True) if won
            ]
        if winners != [self.get(key)]:
            raise UnsafeStore(
                f"two writers raced for one object by {condition} and {len(winners)} of them won: "
                "this object store cannot keep two attempts apart; use one with atomic "
                "conditional writes (AWS S3, MinIO or SeaweedFS, in a recent release)"
            )

    def _put(self, key: str, data: bytes, headers: dict[str, str]) -> str:
        # minio 7.2 has no public conditional put: `put_object(metadata=...)` turns the condition
        # into x-amz-meta-if-none-match and overwrites. Its single-part put sends headers as given.
        with _elmyr_errors(key):
            written = self._client._put_object(self._bucket, keys.checked(key), data, headers)
        return str(written.etag)

    def _put_conditionally(self, key: str, data: bytes, condition: dict[str, str]) -> str:
        for attempt in range(NUM_CONFLICT_RETRIES):
            try:
                return self._put(key, data, dict(condition))
            except (PreconditionFailed, NotFound) as error:  # If-Match without an object: AWS 404
                return self._settle(key, data, condition, error)
            except Conflict:  # another conditional write is in flight (AWS: 409)
                time.sleep(JITTER.uniform(0, 0.05 * 2**attempt))
        raise Unavailable(f"object {key} is being written without end", retry_after_s=RETRY_AFTER_S)

    def _settle(self, key: str, data: bytes, condition: dict[str, str], refusal: ElmyrError) -> str:
        """A condition was refused: our own earlier try is success, anything else has lost."""
        try:
            present, etag = self.get_with_etag(key)
        except NotFound as error:
            raise PreconditionFailed(f"object {key} is not there any more") from error
        if present == data:
            return etag
        if condition.get("If-Match") == etag:
            # Unchanged and still refused: this store takes an ETag in quotes only. Most take both.
            return self._put_conditionally(key, data, {"If-Match": f'"{etag}"'})
        raise PreconditionFailed(f"somebody else wrote object {key} first") from refusal

    def _get(self, key: str, max_bytes: int) -> tuple[bytes, str]:
        response = self._open(key)
        try:
            if int(response.headers.get("Content-Length", 0)) > max_bytes:
                raise TooLarge(f"object {key} is larger than {max_bytes} bytes")
            with _elmyr_errors(key):
                data = response.read(max_bytes + 1)
        except TooLarge:
            response.close()  # unread, it cannot go back to the pool
            raise
        finally:
            response.release_conn()
        if len(data) > max_bytes:
            raise TooLarge(f"object {key} is larger than {max_bytes} bytes")
        return data, _bare(response.headers["ETag"])

    def _open(self, key: str) -> Any:
        with _elmyr_errors(key):
            return self._client.get_object(self._bucket, keys.checked(key))


class _MeasuredReader:
    """Counts and hashes what is read; raises TooLarge as soon as there is more than `max_bytes`."""

    def __init__(self, stream: BinaryIO, *, max_bytes: int) -> None:
        self._stream = stream
        self._max_bytes = max_bytes
        self.num_bytes = 0
        self.sha256 = hashlib.sha256()

    def read(self, size: int) -> bytes:
        """`size` bytes, fewer only at the end: minio joins short reads one by one, O(n^2)."""
        pieces = []
        missing = size
        while missing and (piece := self._stream.read(min(missing, CHUNK_BYTES))):
            self.num_bytes += len(piece)
            if self.num_bytes > self._max_bytes:
                raise TooLarge(f"the body is larger than {self._max_bytes} bytes")
            self.sha256.update(piece)
            pieces.append(piece)
            missing -= len(piece)
        return b"".join(pieces)


def _bare(etag: str) -> str:
    return etag.strip('"')


@contextmanager
def _elmyr_errors(key: str) -> Iterator[None]:
    """Translate what minio and urllib3 raise; `key` names the object in the message."""
    try:
        yield
    except S3Error as error:
        if error.code in MISSING:
            raise NotFound(f"no object {key}") from error
        if error.response.status == 412:
            raise PreconditionFailed(f"object {key} is not as the write expects") from error
        if error.response.status == 409:
            raise Conflict(f"object {key} is being written by somebody else") from error
        raise Unavailable(
            f"the object store refused {key}: {error.code} {error.message}",
            retry_after_s=RETRY_AFTER_S,
        ) from error
    except (MinioException, urllib3.exceptions.HTTPError) as error:
        raise Unavailable(
            f"the object store does not answer for {key}: {error}", retry_after_s=RETRY_AFTER_S
        ) from error
