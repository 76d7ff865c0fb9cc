"""The images API of OpenAI's clients, over the models of the registry.

    POST /v1/images/generations   {model, prompt, n?, size?, response_format?, output_format?,
                                   seed?, truncation?}

What a prompt means depends on the model: text to one that was trained on captions, the name or the
number of a class to one with classes, nothing to one with neither. An empty one leaves the choice
to the seed. `revised_prompt` says what was drawn where that is not the prompt itself.
"""

from __future__ import annotations

import base64
import json
import time
from typing import Annotated, Any, Literal
from urllib.parse import urlencode

from pydantic import Field, StringConstraints, field_validator, model_validator
from starlette.datastructures import URL
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from services.serving import problems
from services.serving.answers import Origin
from services.serving.drawing import Draw
from services.serving.models import LoadedModel
from services.serving.requests import MAX_SEED
from services.serving.studio import Studio
from shared.errors import FieldError, InvalidInput
from shared.images import ImageFormat, Pixels, encode
from shared.schemas.models import ModelCard, SnapshotConfig
from shared.schemas.networks import Frozen
from shared.settings import Settings
from shared.text import MAX_PROMPT_CHARS

Word = Annotated[str, StringConstraints(max_length=500)]

CODES = {"NOT_FOUND": "model_not_found", "TOO_MANY": "rate_limit_exceeded"}
"""Our codes in OpenAI's words; the others are the same in lower case."""

TYPES = {400: "invalid_request_error", 429: "rate_limit_error", 500: "server_error"}
"""By status: that of the nearest below."""


class ImagesRequest(Frozen):
    """Pictures 0 to n - 1 of a seed. A null is as good as nothing."""

    model: Word
    prompt: Annotated[str, StringConstraints(max_length=MAX_PROMPT_CHARS)] = ""
    n: int = Field(1, ge=1)
    size: Word = "auto"
    """`auto` or the model's own, e.g. `32x32`."""
    response_format: Literal["b64_json", "url"] = "b64_json"
    output_format: ImageFormat = "png"
    stream: bool = False
    seed: int | None = Field(None, ge=0, lt=MAX_SEED)
    truncation: float = Field(1.0, gt=0, le=1)

    # Taken, as clients send them by themselves, and of no effect.
    background: Literal["auto", "opaque"] = "auto"
    moderation: Word = ""
    quality: Word = ""
    safety_identifier: Word = ""
    style: Word = ""
    user: Word = ""

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        return {key: value for key, value in given.items() if value is not None}

    @field_validator("stream")
    @classmethod
    def _whole(cls, stream: bool) -> bool:  # noqa: FBT001 - pydantic calls it
        if stream:
            raise ValueError("pictures come in one answer: leave stream out")
        return stream


class ImagesRoutes:
    """The endpoint that makes pictures; the list of models is part of our own API."""

    def __init__(self, studio: Studio, settings: Settings) -> None:
        self._studio = studio
        self._max_bytes = settings.max_json_bytes

    def routes(self) -> list[Route]:
        return [Route("/v1/images/generations", self.generate, methods=["POST"])]

    async def generate(self, request: Request) -> Response:
        """n pictures in base64, or the addresses that draw them."""
        asked = await problems.read_body(request, ImagesRequest, max_bytes=self._max_bytes)
        self._studio.check_num(asked.n, pointer="/n")
        seed = self._studio.seed(asked.seed)
        has_urls = asked.response_format == "url"
        async with self._studio.place(asked.model, 0 if has_urls else asked.n) as model:
            _check_size(asked.size, model)
            label, prompt, revised = _meaning(asked.prompt, model)
            number, text = await self._studio.condition(model, label, prompt, root="")
            origin = Origin.of(model.card, seed)
            content = _content(asked, origin, model.config)
            extra = {} if revised is None else {"revised_prompt": revised}
            if has_urls:
                query = _query(asked, seed, number, prompt)
                address = f"{_base(request)}v1/models/{origin.model}@{origin.version}/image?{query}"
                data = [{"url": f"{address}&index={index}"} | extra for index in range(asked.n)]
                body = json.dumps(content | {"data": data}).encode()
            else:
                body = await model.draw(
                    Draw(seed, range(asked.n), number, asked.truncation, text),
                    lambda pixels: _in_base64(pixels, asked.output_format, content, extra),
                )
        headers = origin.headers() | {"Cache-Control": "no-store"}
        return Response(body, headers=headers, media_type="application/json")


def model(ref: str, card: ModelCard) -> dict[str, Any]:
    """A model as OpenAI's clients list it, under the reference that means it."""
    return {
        "id": ref,
        "object": "model",
        "created": int(card.created_at.timestamp()),
        "owned_by": "elmyr",
    }


def error(problem: dict[str, Any]) -> dict[str, Any]:
    """A problem as OpenAI's clients read it; `param` is the first field that is wrong."""
    pointers = [field["pointer"] for field in problem.get("errors", [])]
    return {
        "error": {
            "message": problem["detail"],
            "type": TYPES[max(status for status in TYPES if status <= problem["status"])],
            "param": pointers[0].removeprefix("/") or None if pointers else None,
            "code": CODES.get(problem["code"], problem["code"].lower()),
        }
    }


def _check_size(size: str, model: LoadedModel) -> None:
    own = _size(model.config)
    if size not in ("auto", own):
        raise InvalidInput(
            f"size is {size}, and {model.card.model} draws {own}: leave size out, or say auto",
            errors=[FieldError(pointer="/size", detail=f"auto or {own}")],
        )


def _size(config: SnapshotConfig) -> str:
    return f"{config.generator.size}x{config.generator.size}"


def _meaning(prompt: str, model: LoadedModel) -> tuple[int | None, str | None, str | None]:
    """The class and the prompt that a prompt means to a model, and what is drawn, if not that.

    Raises InvalidInput: the model has classes, and this is none.
    """
    config = model.config
    wish = prompt.strip()
    if not wish:
        return None, None, None
    if config.text_encoder_sha256 is not None:
        return None, prompt, None
    if not config.generator.num_classes:
        return None, None, ""
    known = {name.casefold(): name for name in config.class_names}
    name = wish if wish in config.class_names else known.get(wish.casefold(), wish)
    number = model.label_number(name, pointer="/prompt")
    assert number is not None
    return number, None, config.class_names[number] if config.class_names else str(number)


def _base(request: Request) -> URL:
    """The address that the client called us by; a proxy before us may have ended its TLS."""
    base = request.base_url
    tls = request.headers.get("X-Forwarded-Proto") == "https"
    return base.replace(scheme="https") if tls else base


def _query(asked: ImagesRequest, seed: int, label: int | None, prompt: str | None) -> str:
    """Of the address that draws such pictures, but for the index."""
    values = {
        "seed": seed,
        "label": label,
        "prompt": prompt,
        "truncation": asked.truncation,
        "format": asked.output_format,
    }
    return urlencode({key: value for key, value in values.items() if value is not None})


def _content(asked: ImagesRequest, origin: Origin, config: SnapshotConfig) -> dict[str, Any]:
    """The answer but for its data: what OpenAI's has, then where the pictures come from."""
    return {
        "created": int(time.time()),
        "background": "opaque",
        "output_format": asked.output_format,
        "size": _size(config),
        "model": origin.model,
        "version": origin.version,
        "job_id": origin.job_id,
        "seed": origin.seed,
    }


def _in_base64(
    pixels: Pixels, format: ImageFormat, content: dict[str, Any], extra: dict[str, str]
) -> bytes:
    """The answer with these pictures [n, H, W, C]."""
    files = [base64.b64encode(encode(picture, format)).decode() for picture in pixels]
    return json.dumps(content | {"data": [{"b64_json": file} | extra for file in files]}).encode()
