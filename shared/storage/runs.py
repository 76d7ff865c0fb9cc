"""The small mutable objects of a run: who claimed an attempt, HEAD, RESULT.

They are what makes a zombie harmless. An attempt's number is its fencing token, claimed once by
If-None-Match. Its first act is to put the token into HEAD, every checkpoint is committed by a
change of HEAD, and a HEAD with a higher token refuses both. What lies in a checkpoint is not known
here.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from pydantic import BaseModel

from shared.errors import IdempotencyClash, NotFound, PreconditionFailed, StaleToken
from shared.schemas.jobs import Outcome
from shared.storage import documents, keys
from shared.storage.objects import ObjectStore


class Best(BaseModel):
    """The checkpoint with the lowest score so far, by its manifest."""

    checkpoint_key: str
    manifest_sha256: str
    score: float


class Head(BaseModel):
    """The newest attempt and the newest committed checkpoint, which an earlier one may have made.

    `checkpoint_key` is the key of the checkpoint's manifest.json; `manifest_sha256` is in hex.
    """

    token: int
    checkpoint_key: str | None = None
    manifest_sha256: str | None = None
    kimg: float = 0.0
    best: Best | None = None
    """Only of a run whose checkpoints are scored."""


class RunResult(BaseModel):
    """How the run ended, for good."""

    token: int
    outcome: Outcome
    result: dict[str, Any]
    ended_at: datetime


class RunStore:
    """The runs of an object store. Everything may be called again after a failure."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def record(self, job_id: str, body: bytes) -> None:
        """Keep the job as it was accepted, before the queue hears of it.

        Raises IdempotencyClash: the id belongs to another body.
        """
        try:
            self._store.put_if_absent(keys.job(job_id), body)
        except PreconditionFailed as error:
            raise IdempotencyClash(f"job {job_id} was accepted with another body") from error

    def claim_attempt(self, job_id: str, *, above: int, nonce: str) -> int:
        """Claim the first free attempt number beyond `above` and beyond HEAD's token.

        The same nonce gets the same number again.
        """
        head = self.head(job_id)
        number = max(above, head.token if head else 0) + 1
        claim = json.dumps({"nonce": nonce}).encode()
        while True:
            try:
                self._store.put_if_absent(keys.claim(job_id, number), claim)
            except PreconditionFailed:
                number += 1
            else:
                return number

    def take_head(self, job_id: str, token: int) -> Head:
        """Put the token into HEAD, keeping the checkpoint there; returns the HEAD that holds.

        Raises StaleToken: a newer attempt was here.
        """

        key = keys.head(job_id)

        def take(present: bytes | None) -> bytes:
            head = documents.parse(Head, present, key) if present else Head(token=token)
            if head.token > token:
                raise StaleToken(f"attempt {head.token} of {job_id} has taken over from {token}")
            return documents.dump(head.model_copy(update={"token": token}))

        return documents.parse(Head, self._store.update(key, take), key)

    def commit_head(self, job_id: str, head: Head) -> None:
        """Make `head` the run's newest checkpoint; its manifest must be written before.

        Raises StaleToken: HEAD does not carry this attempt's token (any more).
        """

        key = keys.head(job_id)

        def commit(present: bytes | None) -> bytes:
            holder = documents.parse(Head, present, key).token if present else 0
            if holder != head.token:
                raise StaleToken(f"attempt {holder} of {job_id} holds HEAD, not {head.token}")
            return documents.dump(head)

        self._store.update(key, commit)

    def head(self, job_id: str) -> Head | None:
        """HEAD, or None before the first attempt took it."""
        try:
            return documents.read(self._store, Head, keys.head(job_id))
        except NotFound:
            return None

    def write_result(self, job_id: str, result: RunResult) -> RunResult:
        """Write RESULT, once: the first holds for good. Returns the one that holds."""
        key = keys.result(job_id)
        try:
            self._store.put_if_absent(key, documents.dump(result))
        except PreconditionFailed:
            return documents.read(self._store, RunResult, key)
        return result

    def result(self, job_id: str) -> RunResult | None:
        """RESULT, or None while the run has not ended."""
        try:
            return documents.read(self._store, RunResult, keys.result(job_id))
        except NotFound:
            return None
