"""Requests that bring pictures: as the body itself, as multipart parts, or in JSON as base64."""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Sequence
from email.message import Message
from typing import Annotated, TypeVar

from pydantic import BaseModel, BeforeValidator
from starlette.requests import Request

from services.serving import multipart, problems
from shared.decoding import Fit, decode
from shared.errors import FieldError, InvalidInput, UnsafeImage
from shared.images import Pixels
from shared.schemas.networks import GeneratorConfig

RAW_TYPES = ("image/png", "image/webp", "image/jpeg", "application/octet-stream")
MAX_READ_S = 60.0
"""A client that sends no faster gives its place up."""

Body = TypeVar("Body", bound=BaseModel)


def _from_base64(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return base64.b64decode(value, validate=True)
    except binascii.Error as error:
        raise ValueError("a picture in JSON is a file in base64") from error


Picture = Annotated[bytes, BeforeValidator(_from_base64)]
"""An image file as it came."""


async def read(
    request: Request, kind: type[Body], *, pictures: Sequence[str], max_bytes: int
) -> Body:
    """A request of `kind`. Its fields named `pictures` come as parts of multipart/form-data or, if
    there is one, as the raw body, all else then in the query; or everything comes as JSON.

    Raises TooLarge; InvalidInput, which points at what is wrong.
    """
    content_type = request.headers.get("Content-Type", "application/json")
    media_type = _media_type(content_type)
    try:
        async with asyncio.timeout(MAX_READ_S):
            body = await problems.read_bytes(request, max_bytes=max_bytes)
    except TimeoutError as error:
        raise InvalidInput(f"the body did not come within {MAX_READ_S:g} s") from error
    if media_type == "application/json":
        return problems.valid(lambda: kind.model_validate_json(body))
    if media_type == "multipart/form-data":
        given = multipart.parts(content_type, body)
    elif media_type in RAW_TYPES and len(pictures) == 1:
        given = {pictures[0]: body}
    else:
        raise InvalidInput(
            f"Content-Type is {media_type}: send {' and '.join(pictures)} as multipart/form-data, "
            "or JSON with the files in base64"
            + (f", or the file itself as {', '.join(RAW_TYPES)}" if len(pictures) == 1 else "")
        )
    return problems.valid(lambda: kind.model_validate({**request.query_params, **given}))


def decoded(file: bytes, config: GeneratorConfig, fit: Fit, *, pointer: str) -> Pixels:
    """An image file as a picture [H, W, C] of the generator's form, made as an ingest makes it.

    Raises UnsafeImage; `pointer` says where in the request the file stands.
    """
    try:
        return decode(file, size=config.size, channels=config.channels, fit=fit)
    except UnsafeImage as error:
        raise UnsafeImage(
            f"{error.detail}; send one still PNG, JPEG or WebP picture",
            errors=[FieldError(pointer=pointer, detail=error.detail)],
        ) from error


def _media_type(content_type: str) -> str:
    header = Message()
    header["Content-Type"] = content_type
    return header.get_content_type()
