"""Pages of lists: `items`, and a `next_cursor` that is null on the last page."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Annotated, Generic, TypeVar

from fastapi import Query
from pydantic import BaseModel

from services.api.limits import MAX_HISTORY_PAGE, MAX_PAGE

Item = TypeVar("Item")

Limit = Annotated[int, Query(ge=1, le=MAX_PAGE)]
HistoryLimit = Annotated[int, Query(ge=1, le=MAX_HISTORY_PAGE)]
Cursor = Annotated[
    str | None, Query(max_length=1024, description="The `next_cursor` of the page before.")
]


class Page(BaseModel, Generic[Item]):
    """One page. Ask again with `cursor` set to `next_cursor` until that is null."""

    items: list[Item]
    next_cursor: str | None = None


def page(items: Iterable[Item], limit: int, *, cursor: Callable[[Item], str]) -> Page[Item]:
    """The first `limit` of `items`, which start behind the present cursor; reads one more."""
    found: list[Item] = []
    for item in items:
        if len(found) == limit:
            return Page(items=found, next_cursor=cursor(found[-1]))
        found.append(item)
    return Page(items=found)
