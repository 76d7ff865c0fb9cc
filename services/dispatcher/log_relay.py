"""What an attempt prints becomes `log` events of its job.

Only the new part of a log is read. Each event carries the offset behind its line: whoever takes a
job over reads on from there. Rate and length are bounded, secrets of ours are blacked out; what a
line means is not known here.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from pydantic import SecretStr

from services.dispatcher.archive import EventArchive
from services.dispatcher.ray_jobs import RayAttempt, RayJobs
from shared.errors import StaleToken
from shared.queue.events import EventLog
from shared.schemas.events import EventType
from shared.settings import Settings

CHUNK_BYTES = 64 * 1024
"""At most this much of a log is relayed in one pull, and one pull is made a second."""
MAX_BEHIND_BYTES = 1024 * 1024
"""Of a log that grows faster, what is older than this is left out."""
MAX_LINE_CHARS = 1000
STREAM = "driver"

TERMINAL_CODES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")

LogEvent = tuple[EventType, dict[str, Any]]


@dataclass
class Cursor:
    """How far an attempt's log has been relayed. `start` is None until it has been looked up."""

    start: int | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)


class LogRelay:
    """Relays logs of attempts, one pull at a time each."""

    def __init__(
        self, settings: Settings, ray: RayJobs, events: EventLog, archive: EventArchive
    ) -> None:
        self._ray = ray
        self._events = events
        self._archive = archive
        self._secrets = _secrets(settings)

    def pull(self, attempt: RayAttempt, cursor: Cursor, *, to_the_end: bool = False) -> None:
        """Relay what is new, at most one chunk of it, or (`to_the_end`) all of it.

        Raises Unavailable; what was relayed is not relayed again.
        """
        with cursor.lock:
            if cursor.start is None:
                cursor.start = self._relayed(attempt)
            while self._pull(attempt, cursor, last=to_the_end) and to_the_end:
                pass

    def blacked_out(self, text: str) -> str:
        """The text without our secrets."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text

    def _pull(self, attempt: RayAttempt, cursor: Cursor, *, last: bool) -> bool:
        """Relay one chunk; returns whether there was any."""
        assert cursor.start is not None
        chunk = self._ray.read_log(attempt, start=cursor.start, max_bytes=CHUNK_BYTES)
        behind = chunk.size - cursor.start
        events: list[LogEvent] = []
        end = cursor.start
        if behind > MAX_BEHIND_BYTES:
            end = chunk.size - CHUNK_BYTES
            events.append(_event(f"... {end - cursor.start} bytes are left out ...", attempt, end))
        else:
            is_whole = last and len(chunk.data) == behind
            for line, end in lines(chunk.data, cursor.start, is_whole=is_whole):
                events.append(_event(self._shown(line), attempt, end))
        if events:
            self._write(attempt, events)
            cursor.start = end
        return bool(events)

    def _write(self, attempt: RayAttempt, events: list[LogEvent]) -> None:
        try:
            self._events.append_many(attempt.job_id, events, token=attempt.number)
        except StaleToken:
            # It has ended by itself, faster than its last words came through.
            for type_, data in events:
                self._events.append(attempt.job_id, type_, data)

    def _relayed(self, attempt: RayAttempt) -> int:
        """Where the relay of this attempt's log stands, by the job's events."""
        for event in self._archive.newest_first(attempt.job_id):
            data = event.data
            is_ours = event.type is EventType.LOG and data.get("attempt") == attempt.number
            if is_ours and "offset" in data:
                return int(data["offset"])
        return 0

    def _shown(self, line: bytes) -> str:
        text = TERMINAL_CODES.sub("", line.decode(errors="replace"))
        # A progress bar writes over itself: its last state is the line.
        return self.blacked_out(text.rstrip().rpartition("\r")[2])[:MAX_LINE_CHARS]


def lines(data: bytes, start: int, *, is_whole: bool) -> Iterator[tuple[bytes, int]]:
    """The lines of a chunk that begins at `start`, and the offset behind each.

    An unfinished last line waits for its end, unless nothing more will come (`is_whole`) or the
    chunk holds nothing else.
    """
    *finished, rest = data.split(b"\n")
    end = start
    for line in finished:
        end += len(line) + 1
        yield line, end
    if rest and (is_whole or (not finished and len(rest) >= CHUNK_BYTES)):
        yield rest, end + len(rest)


def _event(line: str, attempt: RayAttempt, offset: int) -> LogEvent:
    data = {"line": line, "stream": STREAM, "attempt": attempt.number, "offset": offset}
    return EventType.LOG, data


def _secrets(settings: Settings) -> list[str]:
    """Every secret of the settings, and the passwords within them; the longest first."""
    values = {
        value.get_secret_value()
        for name in type(settings).model_fields
        if isinstance(value := getattr(settings, name), SecretStr)
    }
    passwords = {urlsplit(value).password or "" for value in values if "://" in value}
    return sorted((values | passwords) - {""}, key=len, reverse=True)
