"""Is the process alive, can it serve, and how does it fare. No key is needed here."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from services.api.deps import Elmyr
from services.api.problems import declared
from shared.errors import Unavailable
from shared.exposition import MEDIA_TYPE

router = APIRouter(tags=["health"])


class Health(BaseModel):
    """`ok`, or there is no such answer."""

    status: str = "ok"


@router.get("/healthz")
async def healthz() -> Health:
    """The process answers. It says nothing of Redis or S3: restarting it would not mend them."""
    return Health()


@router.get("/readyz", responses=declared(Unavailable))
def readyz(parts: Elmyr) -> Health:
    """Redis and S3 answer. 503 names the one that does not."""
    parts.queue.ping()
    parts.store.check()
    return Health()


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
def metrics(request: Request) -> Response:
    """For Prometheus: requests, their latency, the queue, whether Redis and S3 answer."""
    return Response(request.app.state.telemetry.exposition(), media_type=MEDIA_TYPE)
