"""Object storage: the only file that speaks to S3.

Small objects are bytes in, bytes out; large ones are streams. Conditional writes (If-None-Match,
If-Match) decide every race of Elmyr, so `probe` refuses a store on which they do not hold. What the
objects mean is not known here: see runs.py, datasets.py and registry.py. A store may be shared by
threads, never by a fork.
"""

from __future__ import annotations

import hashlib
import random
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError
from obstore.store import S3Store

from shared.errors import (
    CorruptObject,
    NotFound,
    PreconditionFailed,
    TooLarge,
    Unavailable,
    UnsafeStore,
)
from shared.settings import Settings
from shared.storage import keys

if TYPE_CHECKING:
    from obstore import GetResult, ObjectMeta, PutMode
    from obstore.store import S3Credential

MAX_OBJECT_BYTES = 64 * 2**20
CHUNK_BYTES = 256 * 2**10
PART_BYTES = 8 * 2**20
MAX_PARTS = 10_000  # S3's own limit
NUM_CONFLICT_RETRIES = 5
MAX_LOST_RACES = 100  # every loss means that somebody else won
PROBE_ROUNDS = 8
RETRY_AFTER_S = 2.0
JITTER = random.SystemRandom()

BUCKET_REGION = (
    "<CreateBucketConfiguration><LocationConstraint>{region}</LocationConstraint>"
    "</CreateBucketConfiguration>"
)
DIRECT = build_opener(ProxyHandler({}))
REFUSAL = re.compile(r"<Code>([^<]+)</Code>(?:<Message>([^<]*)</Message>)?")
"""What an S3 server says in the body of an error."""
CAUSE = re.compile(r'(?:message|error): "([^"]+)"|kind: (Timeout)')
"""Where obstore's account of a failed connection, a page long, says why."""


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
    1 s; a silent host: 10 s; a silent server: 15 s), and InvalidInput for a key that could leave
    its prefix.
    """

    def __init__(self, client: S3Store) -> None:
        self._client = client

    @classmethod
    def from_settings(cls, settings: Settings) -> ObjectStore:
        """The bucket that the settings name; nothing is sent yet.

        What AWS_* variables and proxies of the environment say is not asked for.
        """
        access_key = settings.s3_access_key.get_secret_value()

        def credentials() -> S3Credential:
            # Beside keys as options, an AWS_SESSION_TOKEN would be taken for theirs.
            return {
                "access_key_id": access_key,
                "secret_access_key": settings.s3_secret_key.get_secret_value(),
                "token": None,
                "expires_at": None,
            }

        scheme = "https" if settings.s3_secure else "http"
        client = S3Store(
            settings.s3_bucket,
            aws_endpoint_url_s3=f"{scheme}://{settings.s3_endpoint}",
            region=settings.s3_region,
            skip_signature=not access_key,
            virtual_hosted_style_request=False,
            conditional_put="etag",
            credential_provider=credentials,
            client_options={
                "allow_http": not settings.s3_secure,
                "connect_timeout": timedelta(seconds=5),
                "read_timeout": timedelta(seconds=15),
                "timeout": timedelta(days=1),  # of a whole download
                # A proxy of the environment is for the world outside. obstore takes it unless it is
                # given another, and this one is for no host.
                "proxy_url": "http://127.0.0.1",
                "proxy_excludes": "*, 0.0.0.0/0, ::/0",
            },
            retry_config={
                "max_retries": 3,
                "retry_timeout": timedelta(seconds=10),
                "backoff": {
                    "init_backoff": timedelta(milliseconds=100),
                    "max_backoff": timedelta(seconds=1),
                },
            },
        )
        return cls(client)

    def ensure_bucket(self) -> None:
        """Make the bucket if it is not there; several processes may do so at once."""
        status = self._ask_for_bucket("HEAD")
        if status == HTTPStatus.NOT_FOUND:
            status = self._ask_for_bucket("PUT")
        if status not in (HTTPStatus.OK, HTTPStatus.CONFLICT):
            raise Unavailable(
                f"the object store refused its bucket: status {status}", retry_after_s=RETRY_AFTER_S
            )

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
        return self._put(key, data, "overwrite", content_type)

    def put_if_absent(self, key: str, data: bytes) -> str:
        """Write an object unless the key exists; returns its ETag.

        An object that already holds these very bytes is success: a retried request meets its own
        first try. Writers who race must therefore write different bytes (a nonce).

        Raises PreconditionFailed: the key holds other bytes.
        """
        return self._put_conditionally(key, data, expected=None)

    def put_if_match(self, key: str, data: bytes, etag: str) -> str:
        """Replace an object whose ETag is still `etag`; returns the new ETag.

        An object that already holds these very bytes is success, as in `put_if_absent`.

        Raises PreconditionFailed: the object changed, or is gone.
        """
        return self._put_conditionally(key, data, expected=etag)

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
        measured = _MeasuredStream(stream, max_bytes=max_bytes)
        with _elmyr_errors(key):
            obstore.put(
                self._client,
                keys.checked(key),
                iter(measured),
                chunk_size=max(PART_BYTES, max_bytes // MAX_PARTS + 1),
                max_concurrency=1,
            )
        return measured.num_bytes, measured.sha256.hexdigest()

    def delete(self, key: str) -> None:
        """Delete an object; one that is not there is fine."""
        with suppress(NotFound), _elmyr_errors(key):
            obstore.delete(self._client, keys.checked(key))

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
        """The object in chunks of 256 KiB or somewhat more.

        Raises NotFound at the call, before the first chunk is asked for.
        """
        chunks = self._open(key).stream(CHUNK_BYTES)

        def translated() -> Iterator[bytes]:
            with _elmyr_errors(key):
                yield from chunks

        return translated()

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
        """The objects under `prefix` (which ends in `/`), lazily, by key.

        SeaweedFS sorts `/` before all else.
        """
        with _elmyr_errors(prefix):
            for found in obstore.list(self._client, keys.checked(prefix), offset=start_after):
                yield from map(_info, found)

    def folders(self, prefix: str) -> Iterator[str]:
        """The names right under `prefix` (which ends in `/`) that have objects below them."""
        with _elmyr_errors(prefix):
            found = obstore.list_with_delimiter(self._client, keys.checked(prefix))
        return (folder.removeprefix(prefix) for folder in found["common_prefixes"])

    def stat(self, key: str) -> ObjectInfo:
        """Size, ETag and time of an object. Raises NotFound."""
        with _elmyr_errors(key):
            return _info(obstore.head(self._client, keys.checked(key)))

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

    def _ask_for_bucket(self, method: Literal["HEAD", "PUT"]) -> int:
        """The status of a request for the bucket itself, which obstore can sign but not make."""
        address = obstore.sign(self._client, method, "", timedelta(minutes=1))
        region = self._client.config["region"]
        elsewhere = method == "PUT" and region != "us-east-1"  # AWS: where no region may be named
        body = BUCKET_REGION.format(region=region).encode() if elsewhere else None
        request = Request(address, data=body, method=method)  # noqa: S310 - the settings' address
        try:
            with DIRECT.open(request, timeout=15) as answer:
                return int(answer.status)
        except HTTPError as error:
            return error.code
        except OSError as error:
            raise _unavailable("its bucket", error) from error

    def _put(
        self, key: str, data: bytes, mode: PutMode, content_type: str = "application/octet-stream"
    ) -> str:
        with _elmyr_errors(key):
            written = obstore.put(
                self._client,
                keys.checked(key),
                data,
                mode=mode,
                attributes={"Content-Type": content_type},
                chunk_size=PART_BYTES,
            )
        return _bare(written["e_tag"])

    def _put_conditionally(self, key: str, data: bytes, *, expected: str | None) -> str:
        """Write where the ETag is `expected` (None: where nothing is)."""
        mode: PutMode = "create" if expected is None else {"e_tag": f'"{expected}"'}
        for attempt in range(NUM_CONFLICT_RETRIES):
            try:
                return self._put(key, data, mode)
            except PreconditionFailed as refusal:
                present, etag = self._present(key)
                if present == data:
                    return str(etag)  # by our own earlier try
                if etag != expected:
                    raise PreconditionFailed(f"somebody else wrote object {key} first") from refusal
                # Another conditional write was in flight (AWS: 409).
                time.sleep(JITTER.uniform(0, 0.05 * 2**attempt))
        raise Unavailable(f"object {key} is being written without end", retry_after_s=RETRY_AFTER_S)

    def _present(self, key: str) -> tuple[bytes, str] | tuple[None, None]:
        try:
            return self.get_with_etag(key)
        except NotFound:
            return None, None

    def _get(self, key: str, max_bytes: int) -> tuple[bytes, str]:
        found = self._open(key)
        if found.meta["size"] > max_bytes:
            raise TooLarge(f"object {key} is larger than {max_bytes} bytes")
        with _elmyr_errors(key):
            return bytes(found.bytes()), _bare(found.meta["e_tag"])

    def _open(self, key: str) -> GetResult:
        with _elmyr_errors(key):
            return obstore.get(self._client, keys.checked(key))


class _MeasuredStream:
    """Counts and hashes what is read; raises TooLarge as soon as there is more than `max_bytes`."""

    def __init__(self, stream: BinaryIO, *, max_bytes: int) -> None:
        self._stream = stream
        self._max_bytes = max_bytes
        self.num_bytes = 0
        self.sha256 = hashlib.sha256()

    def __iter__(self) -> Iterator[bytes]:
        while piece := self._stream.read(CHUNK_BYTES):
            self.num_bytes += len(piece)
            if self.num_bytes > self._max_bytes:
                raise TooLarge(f"the body is larger than {self._max_bytes} bytes")
            self.sha256.update(piece)
            yield piece


def _info(found: ObjectMeta) -> ObjectInfo:
    return ObjectInfo(found["path"], found["size"], _bare(found["e_tag"]), found["last_modified"])


def _bare(etag: str | None) -> str:
    return (etag or "").strip('"')


@contextmanager
def _elmyr_errors(key: str) -> Iterator[None]:
    """Translate what obstore raises; `key` names the object in the message."""
    try:
        yield
    except (AlreadyExistsError, PreconditionError) as error:
        raise PreconditionFailed(f"object {key} is not as the write expects") from error
    except FileNotFoundError as error:
        if "NoSuchBucket" in str(error):
            raise _unavailable(key, error) from error
        raise NotFound(f"no object {key}") from error
    except BaseError as error:
        raise _unavailable(key, error) from error


def _unavailable(key: str, error: Exception) -> Unavailable:
    text = str(error)
    if refusal := REFUSAL.search(text):
        detail = f"the object store refused {key}: {' '.join(filter(None, refusal.groups()))}"
    else:
        cause = CAUSE.search(text)
        why = (cause[1] or cause[2]) if cause else text.partition("\n")[0]
        detail = f"the object store does not answer for {key}: {why}"
    return Unavailable(detail, retry_after_s=RETRY_AFTER_S)
