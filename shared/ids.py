"""Names and identifiers. They become object keys and Ray submission ids, so they are strict."""

from __future__ import annotations

import hashlib
from typing import Annotated

from pydantic import StringConstraints
from ulid import ULID

NAME_PATTERN = r"^[a-z0-9][a-z0-9._-]{0,62}$"
ID_PATTERN = r"^[a-z0-9][a-z0-9-]{0,62}$"

Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
"""A dataset, model or alias: lower case, at most 63 characters, safe in a key and in a URL."""

JobId = Annotated[str, StringConstraints(pattern=ID_PATTERN)]


def new_job_id() -> str:
    """A new job id; ids sort by time of creation."""
    return f"job-{str(ULID()).lower()}"


def job_id_for(owner: str, idempotency_key: str) -> str:
    """The one job id that belongs to an owner's Idempotency-Key.

    A client that repeats a submit therefore meets its first one also in object storage, where the
    job is written before the queue hears of it.
    """
    digest = hashlib.blake2b(f"{owner}\0{idempotency_key}".encode(), digest_size=13).hexdigest()
    return f"job-{digest}"
