"""The body of a request, which comes on the event loop, as a file that a thread can read."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from typing import BinaryIO, cast

import anyio
from anyio import from_thread
from typing_extensions import Buffer

NUM_UPLOADS = 8
"""Uploads that are written at once; others wait. Each holds a thread and two parts of 8 MiB."""
MAX_SILENCE_S = 60.0
"""A client that sends nothing for so long has gone, or wants to hold the thread."""


class UploadStream(io.RawIOBase):
    """Reads an async iterator of chunks, one at a time: a slow store slows the client.

    Reading raises TimeoutError after a minute of silence, and what the iterator raises.
    """

    def __init__(self, chunks: AsyncIterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = memoryview(b"")

    def buffered(self) -> BinaryIO:
        """This stream as an ordinary binary file."""
        return cast(BinaryIO, io.BufferedReader(self, buffer_size=256 * 2**10))

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Buffer, /) -> int:
        """Fill `buffer` with what is there; 0 is the end. Call it in a worker thread only."""
        while not self._rest:
            chunk = from_thread.run(self._next)
            if chunk is None:
                return 0
            self._rest = memoryview(chunk)
        target = memoryview(buffer)
        num_bytes = min(len(target), len(self._rest))
        target[:num_bytes] = self._rest[:num_bytes]
        self._rest = self._rest[num_bytes:]
        return num_bytes

    async def _next(self) -> bytes | None:
        with anyio.fail_after(MAX_SILENCE_S):
            return await anext(self._chunks, None)
