"""The chunks of a sampling job, and the HTTP call that has one drawn.

A chunk is written to object storage by whoever draws it; this file only asks for it.
"""

from __future__ import annotations

from dataclasses import dataclass

import httpx2

from shared.errors import ElmyrError, InvalidInput, NotFound, TooMany, Unavailable
from shared.schemas.specs import SAMPLE_CHUNK, SampleSpec
from shared.settings import Settings

TIMEOUT = httpx2.Timeout(120.0, connect=3.0)  # the first chunk waits until the model is loaded
MAX_RETRY_AFTER_S = 30.0

# What Serve or its proxy answers while replicas start, are full, or are being replaced.
BUSY: dict[int, type[ElmyrError]] = {
    429: TooMany,
    502: Unavailable,
    503: Unavailable,
    504: Unavailable,
}
HOPELESS: dict[int, type[ElmyrError]] = {404: NotFound, 422: InvalidInput}


@dataclass(frozen=True, slots=True)
class Chunk:
    """Pictures `start` to `start + count - 1` of a job's seed."""

    index: int
    start: int
    count: int


def chunks(spec: SampleSpec) -> list[Chunk]:
    """The chunks of a job: a pure function of its spec."""
    return [
        Chunk(index, start, min(SAMPLE_CHUNK, spec.n - start))
        for index, start in enumerate(range(0, spec.n, SAMPLE_CHUNK))
    ]


class Bulk:
    """The bulk deployment; safe to share between threads."""

    def __init__(self, settings: Settings) -> None:
        self._client = httpx2.Client(
            base_url=settings.serve_url,
            timeout=TIMEOUT,
            trust_env=False,  # a proxy of the environment is for the world outside
        )

    def draw(self, job_id: str, chunk: Chunk, spec: SampleSpec, model: str, version: int) -> None:
        """Return when the chunk exists.

        Raises TooMany or Unavailable (with the pause that was asked for) when another try may work;
        NotFound or InvalidInput when none will; ElmyrError otherwise.
        """
        body = {
            "job_id": job_id,
            "index": chunk.index,
            "model": model,
            "version": version,
            "seed": spec.seed,
            "start": chunk.start,
            "count": chunk.count,
            "label": spec.label,
            "prompt": spec.prompt,
            "truncation": spec.truncation,
            "format": spec.format,
        }
        try:
            response = self._client.post("/bulk/chunks", json=body)
        except httpx2.TransportError as error:
            raise Unavailable(
                f"the bulk deployment does not answer ({type(error).__name__}: {error})"
            ) from error
        if not response.is_success:
            raise _error(response)


def _error(response: httpx2.Response) -> ElmyrError:
    detail = f"the bulk deployment answers {response.status_code}: {_detail(response)}"
    if busy := BUSY.get(response.status_code):
        return busy(detail, retry_after_s=_retry_after_s(response))
    # Serve's own 404 means that the application is not (yet) there; only ours says what is missing.
    if not _is_problem(response) and response.status_code == 404:
        return Unavailable(detail)
    return HOPELESS.get(response.status_code, ElmyrError)(detail)


def _is_problem(response: httpx2.Response) -> bool:
    return response.headers.get("Content-Type", "").startswith("application/problem+json")


def _detail(response: httpx2.Response) -> str:
    if _is_problem(response):
        return str(response.json().get("detail"))
    return response.text[:300].strip()


def _retry_after_s(response: httpx2.Response) -> float | None:
    asked = response.headers.get("Retry-After", "")
    return min(float(asked), MAX_RETRY_AFTER_S) if asked.isdecimal() else None
