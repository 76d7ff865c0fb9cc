"""The Open Inference Protocol, version 2, which the clients of Triton and KServe speak.

    GET  /v2, /v2/health/live, /v2/health/ready
    GET  /v2/models/{model}[/versions/{version}], and /ready below it
    POST /v2/models/{model}[/versions/{version}]/infer, POST /v2/repository/index

Inputs, each optional, one value each but z: n, seed (INT64), label (BYTES or INT64), prompt
(BYTES), truncation (FP32), z (FP32 [n, z_dim], in place of seed and truncation). The output is
images (UINT8 [n, H, W, C]).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import torch
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from services.serving import problems, tensors
from services.serving.answers import Origin
from services.serving.drawing import Draw
from services.serving.requests import MAX_Z, GenerateRequest
from services.serving.studio import Studio
from services.serving.tensors import DataType, InferenceRequest, Tensor, wrong
from shared.errors import InvalidInput
from shared.schemas.models import SnapshotConfig
from shared.settings import Settings

PLATFORM = "elmyr_safetensors"

MAX_JSON_VALUES = 2**20
"""Of an output in JSON: 0.15 s of work, 4 MB. As binary data there is no such limit."""

DATATYPES: Mapping[str, tuple[DataType, ...]] = {
    "n": ("INT64",),
    "seed": ("INT64",),
    "label": ("BYTES", "INT64"),
    "prompt": ("BYTES",),
    "truncation": ("FP32",),
    "z": ("FP32",),
}
"""What each input may be; metadata names the first."""


class OpenInferenceRoutes:
    """The endpoints of the protocol."""

    def __init__(self, studio: Studio, settings: Settings) -> None:
        self._studio = studio
        self._models = studio.models
        self._max_bytes = settings.serve_max_picture_bytes

    def routes(self) -> list[Route]:
        return [
            Route(f"/v2/models/{model}{path}", endpoint, methods=[method])
            for model in ("{model}", "{model}/versions/{version}")
            for path, endpoint, method in (
                ("/infer", self.infer, "POST"),
                ("/ready", self.ready_model, "GET"),
                ("", self.get_model, "GET"),
            )
        ] + [
            Route("/v2", self.get_server),
            Route("/v2/", self.get_server),  # as the protocol's OpenAPI document has it
            Route("/v2/health/live", self.live),
            Route("/v2/health/ready", self.ready),
            Route("/v2/repository/index", self.index, methods=["POST"]),
        ]

    async def infer(self, request: Request) -> Response:
        """Pictures, the same as from `generate`."""
        encoding = request.headers.get("Content-Encoding", "identity")
        if encoding != "identity":
            raise InvalidInput(f"Content-Encoding is {encoding}: send the body as it is")
        body = await problems.read_bytes(request, max_bytes=self._max_bytes)
        asked, inputs = tensors.unpacked(body, request.headers.get(tensors.HEADER_LENGTH))
        binary = _is_binary(asked)
        wish, z = _wish(inputs)
        self._studio.check_num(wish.n, pointer="/inputs/n")
        seed = self._studio.seed(wish.seed)
        async with self._studio.place(_ref(request), wish.n) as model:
            num_values = wish.n * math.prod(_shape(model.config))
            if num_values > MAX_JSON_VALUES and not binary:
                raise InvalidInput(
                    f"{num_values} values are too many for JSON, which takes {MAX_JSON_VALUES}: "
                    "ask for binary_data"
                )
            if z is not None:
                _check_z(z, wish, model.config)
            label, text = await self._studio.condition(
                model, wish.label, wish.prompt, root="/inputs"
            )
            origin = Origin.of(model.card, seed if z is None else None)
            content = _content(asked, origin)
            body = await model.draw(
                Draw(seed, range(wish.n), label, wish.truncation, text, z),
                lambda pixels: tensors.packed(content, pixels, binary=binary),
            )
        headers = origin.headers() | {"Cache-Control": "no-store"}
        if not binary:
            return Response(body, headers=headers, media_type="application/json")
        headers[tensors.HEADER_LENGTH] = str(len(body) - num_values)
        return Response(body, headers=headers, media_type="application/octet-stream")

    async def get_model(self, request: Request) -> Response:
        """What a model takes and gives; loads it."""
        async with self._models.use(_ref(request)) as model:
            card, config = model.card, model.config
        summary = await self._models.in_thread(self._models.registry.model, card.model)
        return JSONResponse(
            {
                "name": card.model,
                "versions": [str(number) for number in summary.versions],
                "platform": PLATFORM,
                "inputs": [
                    {"name": name, "datatype": DATATYPES[name][0], "shape": shape}
                    for name, shape in _inputs(config).items()
                ],
                "outputs": [
                    {"name": "images", "datatype": "UINT8", "shape": [-1, *_shape(config)]}
                ],
            }
        )

    async def ready_model(self, request: Request) -> Response:
        """Loads a model, so that it is ready."""
        async with self._models.use(_ref(request)) as model:
            card = model.card
        return JSONResponse({"name": card.model, "ready": True})

    async def index(self, request: Request) -> Response:
        """Every version of every model. All are ready: they are loaded when they are used."""
        del request
        found = await self._models.in_thread(self._models.registry.models)
        return JSONResponse(
            [
                {"name": model.name, "version": str(number), "state": "READY", "reason": ""}
                for model in found
                for number in model.versions
            ]
        )

    async def get_server(self, request: Request) -> Response:
        """Who answers."""
        del request
        return JSONResponse(
            {"name": "elmyr", "version": version("elmyr"), "extensions": ["binary_tensor_data"]}
        )

    async def live(self, request: Request) -> Response:
        """The process answers."""
        del request
        return JSONResponse({"live": True})

    async def ready(self, request: Request) -> Response:
        """A model is in memory, or the store answers."""
        del request
        await self._models.check_ready()
        return JSONResponse({"ready": True})


def error(problem: dict[str, Any]) -> dict[str, Any]:
    """A problem as the protocol has it."""
    return {"error": problem["detail"]}


def _ref(request: Request) -> str:
    path = request.path_params
    return f"{path['model']}@{path['version']}" if "version" in path else str(path["model"])


def _shape(config: SnapshotConfig) -> tuple[int, int, int]:
    """Of a picture: H, W, C."""
    return config.generator.size, config.generator.size, config.generator.channels


def _inputs(config: SnapshotConfig) -> dict[str, list[int]]:
    """What a model may be given, and of what shape."""
    inputs = {"n": [1], "seed": [1], "truncation": [1], "z": [-1, config.generator.z_dim]}
    if config.generator.num_classes:
        inputs["label"] = [1]
    if config.text_encoder_sha256 is not None:
        inputs["prompt"] = [1]
    return inputs


def _is_binary(asked: InferenceRequest) -> bool:
    """Whether the output is to be binary. Raises InvalidInput for an output that is not there."""
    binary = asked.parameters.binary_data_output
    for output in asked.outputs:
        if output.name != "images":
            raise InvalidInput(f"there is no output {output.name!r}; there is: images")
        if output.parameters.binary_data is not None:
            binary = output.parameters.binary_data
    return binary


def _wish(inputs: Mapping[str, Tensor]) -> tuple[GenerateRequest, torch.Tensor | None]:
    """The inputs as a request of `generate`, and z float32 [n, ...] where it is given.

    Raises InvalidInput, which says which input is wrong.
    """
    for name, tensor in inputs.items():
        if name not in DATATYPES:
            raise wrong(name, f"there is no such input; there are: {', '.join(DATATYPES)}")
        if tensor.datatype not in DATATYPES[name]:
            raise wrong(name, f"{tensor.datatype} is not {' or '.join(DATATYPES[name])}")
    given = {name: _one(name, tensor) for name, tensor in inputs.items() if name != "z"}
    z = None
    if "z" in inputs:
        for name in given.keys() & {"seed", "truncation"}:
            raise wrong(name, "z takes its place: give one of them")
        # A copy: binary data cannot be written to, and torch wants to.
        z = torch.tensor(inputs["z"].values)
        num_rows = len(z) if z.dim() else 0
        if given.setdefault("n", num_rows) != num_rows:
            raise wrong("n", f"z has {num_rows} rows: leave n out")
    return problems.valid(lambda: GenerateRequest.model_validate(given), "/inputs"), z


def _one(name: str, tensor: Tensor) -> int | float | str:
    """The one value of a tensor."""
    if tensor.values.size != 1:
        raise wrong(name, f"one value holds for all pictures, and {tensor.values.size} are given")
    value: int | float | bytes = tensor.values.item()
    if not isinstance(value, bytes):
        return value
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise wrong(name, "this is no UTF-8") from error


def _check_z(z: torch.Tensor, wish: GenerateRequest, config: SnapshotConfig) -> None:
    """Raises InvalidInput for a z that the model cannot draw, or not without a condition."""
    z_dim = config.generator.z_dim
    if z.dim() != 2 or z.shape[1] != z_dim:
        raise wrong("z", f"shape is {list(z.shape)}, and must be [n, {z_dim}]")
    if not bool((z.abs() <= MAX_Z).all()):
        raise wrong("z", f"every value must lie within -{MAX_Z:g} and {MAX_Z:g}")
    if config.generator.num_classes and wish.label is None:
        raise wrong("label", "a z has no class of its own: give one")
    if config.text_encoder_sha256 is not None and wish.prompt is None:
        raise wrong("prompt", "a z has no caption of its own: give one")


def _content(asked: InferenceRequest, origin: Origin) -> dict[str, Any]:
    """The JSON of an answer but for its outputs."""
    seed = {} if origin.seed is None else {"seed": origin.seed}
    return {
        "model_name": origin.model,
        "model_version": str(origin.version),
        "parameters": {"job_id": origin.job_id} | seed,
    } | ({} if asked.id is None else {"id": asked.id})
