"""Objects of the store as answers: streamed, with a type fixed by the key's extension.

What lies in the store was made from users' data: a browser must neither guess its type nor run it.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any, Literal, NamedTuple

from fastapi import Response
from fastapi.responses import StreamingResponse

from shared.errors import NotFound
from shared.storage.objects import ObjectStore

SANDBOX = "sandbox; default-src 'none'; img-src 'self'; frame-ancestors 'none'"
CACHED = "private, max-age=86400, immutable"
"""Pictures lie under keys that are written once."""


class Kind(NamedTuple):
    """How a kind of file is answered."""

    media_type: str
    disposition: Literal["inline", "attachment"]


KINDS = {
    ".png": Kind("image/png", "inline"),
    ".webp": Kind("image/webp", "inline"),
    ".json": Kind("application/json", "attachment"),
    ".jsonl": Kind("application/x-ndjson", "attachment"),
    ".zip": Kind("application/zip", "attachment"),
}
OTHER = Kind("application/octet-stream", "attachment")


def declared(*media_types: str) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that answers with a file, for its OpenAPI description."""
    content: dict[str, Any] = {media_type: {} for media_type in media_types}
    return {200: {"description": "The file", "content": content}}


PICTURE = declared("image/png", "image/webp")
ARCHIVE = declared("application/zip")
ANY_FILE = declared(*(kind.media_type for kind in (*KINDS.values(), OTHER)))


def headers(filename: str) -> dict[str, str]:
    """Type, disposition and policy of a file of this name; a picture may be cached."""
    kind = KINDS.get(PurePosixPath(filename).suffix, OTHER)
    found = {
        "Content-Type": kind.media_type,
        "Content-Disposition": f'{kind.disposition}; filename="{filename}"',
        "Content-Security-Policy": SANDBOX,
    }
    return found | ({"Cache-Control": CACHED} if kind.disposition == "inline" else {})


def object_response(store: ObjectStore, key: str) -> Response:
    """The object under `key`, 256 KiB of it in memory at a time. Raises NotFound."""
    name = PurePosixPath(key).name
    try:
        num_bytes = store.stat(key).bytes
        chunks = store.stream(key)
    except NotFound as error:
        raise NotFound(f"there is no {name} here (any more)") from error
    return StreamingResponse(chunks, headers=headers(name) | {"Content-Length": str(num_bytes)})
