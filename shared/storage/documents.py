"""JSON objects of the store: a pydantic model in, bytes out, and back."""

from __future__ import annotations

from typing import TypeVar

from pydantic import BaseModel, ValidationError

from shared.errors import CorruptObject
from shared.storage.objects import ObjectStore

Document = TypeVar("Document", bound=BaseModel)


def dump(document: BaseModel) -> bytes:
    """The document as JSON; the same document gives the same bytes."""
    return document.model_dump_json().encode()


def parse(kind: type[Document], data: bytes, key: str) -> Document:
    """The document in `data`. Raises CorruptObject, which names `key`."""
    try:
        return kind.model_validate_json(data)
    except ValidationError as error:
        raise CorruptObject(f"object {key} cannot be read as {kind.__name__}: {error}") from error


def read(store: ObjectStore, kind: type[Document], key: str) -> Document:
    """The document under `key`. Raises NotFound, CorruptObject."""
    return parse(kind, store.get(key), key)
