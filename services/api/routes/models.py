"""The registry: models, their versions, and the aliases that promote and roll back."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, status
from pydantic import BaseModel, ConfigDict, Field

from services.api.auth import Owner, needs_key
from services.api.deps import Elmyr, Parts
from services.api.limits import BoundedRoute
from services.api.pages import Cursor, Limit, Page, page
from services.api.problems import declared
from shared.errors import Conflict, InvalidInput, NotFound, TooLarge, Unauthorized, Unavailable
from shared.ids import Name
from shared.schemas.jobs import JobKind
from shared.schemas.models import Alias, ModelCard, ModelSummary
from shared.schemas.scores import Evaluation

router = APIRouter(
    prefix="/v1/models",
    tags=["models"],
    route_class=BoundedRoute,
    dependencies=[needs_key],
    responses=declared(Unauthorized, InvalidInput, Unavailable),
)

READERS = (JobKind.SAMPLE, JobKind.ENCODE, JobKind.EVALUATE)
"""Kinds of jobs whose spec names a model that they read."""
MAX_VERSION = 2**31 - 1
Version = Annotated[int, Path(ge=1, le=MAX_VERSION)]


class AliasTarget(BaseModel):
    """Which version an alias shall name."""

    model_config = ConfigDict(extra="forbid")

    version: int = Field(ge=1, le=MAX_VERSION)


@router.get("")
def list_models(parts: Elmyr, cursor: Cursor = None, limit: Limit = 50) -> Page[ModelSummary]:
    """List models by name, each with its versions, aliases and the card of its latest version."""
    found = (model for model in parts.registry.models() if cursor is None or model.name > cursor)
    return page(found, limit, cursor=lambda model: model.name)


@router.get("/{name}", responses=declared(NotFound))
def get_model(name: Name, parts: Elmyr) -> ModelSummary:
    """One model. 404 says what models there are."""
    return parts.registry.model(name)


@router.delete(
    "/{name}", status_code=status.HTTP_204_NO_CONTENT, responses=declared(NotFound, Conflict)
)
def delete_model(name: Name, parts: Elmyr) -> None:
    """Delete a model with every version and alias; no number is given again. 409: a job that has
    not ended draws from it."""
    _check_unread(parts, name)
    parts.registry.delete_model(name)


@router.get("/{name}/versions/{version}", responses=declared(NotFound))
def get_version(name: Name, version: Version, parts: Elmyr) -> ModelCard:
    """A version's card: job, data, size, metrics, digests."""
    return parts.registry.card(name, version)


@router.get("/{name}/versions/{version}/scores", responses=declared(NotFound))
def get_scores(name: Name, version: Version, parts: Elmyr) -> list[Evaluation]:
    """What evaluations said of a version, newest first: each score between what real pictures and
    what noise would get."""
    return parts.registry.evaluations(name, version)


@router.delete(
    "/{name}/versions/{version}",
    status_code=status.HTTP_204_NO_CONTENT,
    responses=declared(NotFound, Conflict),
)
def delete_version(name: Name, version: Version, parts: Elmyr) -> None:
    """Delete a version; its number is never given again. 409: an alias names it, or a job that has
    not ended draws from it by its number."""
    _check_unread(parts, f"{name}@{version}")
    parts.registry.delete_version(name, version)


@router.get("/{name}/aliases/{alias}", responses=declared(NotFound))
def get_alias(name: Name, alias: Name, parts: Elmyr) -> Alias:
    """An alias, with what it named before."""
    return parts.registry.alias(name, alias)


@router.delete(
    "/{name}/aliases/{alias}",
    status_code=status.HTTP_204_NO_CONTENT,
    responses=declared(NotFound, Conflict),
)
def delete_alias(name: Name, alias: Name, parts: Elmyr) -> None:
    """Delete an alias with its history; the version that it names stays. 409: it is `latest`."""
    parts.registry.delete_alias(name, alias)


@router.put("/{name}/aliases/{alias}", responses=declared(NotFound, TooLarge))
def put_alias(name: Name, alias: Name, target: AliasTarget, parts: Elmyr, owner: Owner) -> Alias:
    """Point an alias at a version: promote, or roll back. Serving follows within 2 s.

    404: no such model or version. 422: the alias is a number, which would look like a version.
    """
    return parts.registry.move_alias(name, alias, target.version, by=owner)


def _check_unread(parts: Parts, reference: str) -> None:
    """Raises Conflict while a job that has not ended draws from what NAME or NAME@VERSION names."""
    for job in parts.unfinished(*READERS):
        model = job.spec["model"]
        if reference in (model, model.partition("@")[0]):
            raise Conflict(f"job {job.id} is {job.state} and draws from model {model}")
