"""HTTP with retries: a request is sent until it is answered, refused or out of patience.

It knows no route. A request is repeated when the connection broke or the server said that it is
busy. Each POST carries an Idempotency-Key that stays the same over the repeats, so that the server
does the thing once.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from random import SystemRandom
from typing import Any, TypeVar

import httpx2
from pydantic import SecretStr

from services.client.errors import Unreachable, error_of
from shared.errors import ElmyrError, TooMany, Unavailable

RETRIED = (Unavailable, TooMany)
PATIENCE_S = 30.0
"""How long is waited between the tries, in all: an API that restarts is back within it."""
FIRST_PATIENCE_S = 1.0
"""The same for a server that never answered: it is more likely down than restarting."""
FIRST_DELAY_S = 0.25
MAX_DELAY_S = 8.0
TIMEOUT = httpx2.Timeout(60.0, connect=5.0)
CHUNK_BYTES = 256 * 1024
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")

Params = Mapping[str, str | int | float | bool | None]
Body = Callable[[], Iterable[bytes]]
"""Makes a request's body anew for each try."""

T = TypeVar("T")
_random = SystemRandom()


class Patience:
    """Spaces a row of tries: each waits longer than the one before, with jitter.

    Only the waiting counts against the limit: an upload of an hour may break and start again.
    """

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Something worked: count from here."""
        self._waited_s = 0.0
        self._delay_s = FIRST_DELAY_S

    def wait(self, error: ElmyrError, *, limit_s: float) -> None:
        """Sleep until the next try, as long as the server asked for if it did.

        Raises `error` when it is not one that passes, or when that makes more than `limit_s`.
        """
        delay_s = error.retry_after_s or self._delay_s * _random.uniform(0.5, 1.0)
        if not isinstance(error, RETRIED) or self._waited_s + delay_s > limit_s:
            raise error
        time.sleep(delay_s)
        self._waited_s += delay_s
        self._delay_s = min(2 * self._delay_s, MAX_DELAY_S)


class Transport:
    """One server. Paths are put behind `base_url`; the key goes to this server only."""

    def __init__(self, base_url: str, key: SecretStr | None) -> None:
        self.base_url = base_url
        self._client = httpx2.Client(
            base_url=base_url,
            headers={"Authorization": f"Bearer {key.get_secret_value()}"} if key else {},
            timeout=TIMEOUT,
            # A proxy of the environment is for the world outside, not for this machine.
            mounts={f"all://{host}": httpx2.HTTPTransport() for host in LOOPBACK},
        )
        self._met = False

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def send(
        self,
        method: str,
        path: str,
        *,
        params: Params | None = None,
        json: Any = None,
        body: Body | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx2.Response:
        """The answer, read whole.

        Raises the error of shared/errors.py that the server names; Unreachable when nobody answers.
        """
        sent = dict(headers or {})
        if method == "POST":
            sent["Idempotency-Key"] = uuid.uuid4().hex
        given = {name: value for name, value in (params or {}).items() if value is not None}

        def build() -> httpx2.Request:
            content = body() if body else None
            return self._client.build_request(
                method, path, params=given, json=json, content=content, headers=sent
            )

        def read(response: httpx2.Response) -> httpx2.Response:
            response.read()
            return response

        return self._repeated(build, read)

    def download(self, path: str, into: Path) -> int:
        """Write what lies at `path` into a file, which appears whole or not at all.

        Returns the number of bytes. Raises OSError for the file, and what `send` raises.
        """
        part = into.with_name(into.name + ".part")

        def write(response: httpx2.Response) -> None:
            with part.open("wb") as file:
                for chunk in response.iter_bytes(CHUNK_BYTES):
                    file.write(chunk)

        try:
            self._repeated(lambda: self._client.build_request("GET", path), write)
            part.replace(into)
        finally:
            part.unlink(missing_ok=True)
        return into.stat().st_size

    @contextmanager
    def event_stream(self, path: str, *, last_event_id: str | None) -> Iterator[httpx2.EventSource]:
        """One connection to a stream of server-sent events; who reads it reconnects.

        Raises Unreachable when it breaks, also while it is read.
        """
        headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
        if last_event_id is not None:
            headers["Last-Event-ID"] = last_event_id
        with self._once(self._client.build_request("GET", path, headers=headers)) as response:
            yield httpx2.EventSource(response)

    def _repeated(
        self, build: Callable[[], httpx2.Request], use: Callable[[httpx2.Response], T]
    ) -> T:
        patience = Patience()
        while True:
            try:
                with self._once(build()) as response:
                    return use(response)
            except RETRIED as error:
                patience.wait(error, limit_s=PATIENCE_S if self._met else FIRST_PATIENCE_S)

    @contextmanager
    def _once(self, request: httpx2.Request) -> Iterator[httpx2.Response]:
        """One try: an answer of success, its body still to be read."""
        try:
            with closing(self._client.send(request, stream=True)) as response:
                self._met = True
                if not response.is_success:
                    response.read()
                    raise error_of(response)
                yield response
        except httpx2.SSEError as error:  # somebody else answers here, a proxy's page for instance
            raise ElmyrError(f"{request.url} is no stream of events: {error}") from error
        except httpx2.TransportError as error:
            raise Unreachable(
                f"{self.base_url} does not answer ({type(error).__name__}): is it up? "
                "`elmyr up` starts a stack"
            ) from error
