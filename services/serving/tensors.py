"""Tensors in an HTTP body, by the Open Inference Protocol: in JSON, or as bytes behind the JSON
(its binary tensor data extension). What the tensors mean is not known here."""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, StringConstraints

from services.serving import problems
from shared.errors import FieldError, InvalidInput, TooLarge
from shared.images import Pixels
from shared.schemas.networks import Frozen

HEADER_LENGTH = "Inference-Header-Content-Length"
"""The header that says how many bytes of a body are JSON; without it all are."""

MAX_JSON_BYTES = 2**18
"""Of a request. A list costs Python more than the two bytes that it takes: 1 MB of them holds the
event loop up for half a second."""
MAX_TENSORS = 16
MAX_DIMENSIONS = 4
MAX_ELEMENTS = 1024
"""Of BYTES, which are taken apart one by one; 4 million empty ones take 3 s."""

Name = Annotated[str, StringConstraints(max_length=200)]
Dimension = Annotated[int, Field(ge=1, lt=2**31)]
DataType = Literal["INT64", "FP32", "BYTES"]


class InputParameters(Frozen):
    binary_data_size: int | None = Field(None, ge=0)
    """Bytes of this tensor behind the JSON; without it the data is in the JSON."""


class InputTensor(Frozen):
    """A tensor as the JSON describes it."""

    name: Name
    shape: list[Dimension] = Field(max_length=MAX_DIMENSIONS)
    datatype: DataType
    parameters: InputParameters = InputParameters()
    data: list[Any] | None = None
    """The values row by row, flat or in nested lists."""


class OutputParameters(Frozen):
    binary_data: bool | None = None


class RequestedOutput(Frozen):
    name: Name
    parameters: OutputParameters = OutputParameters()


class RequestParameters(Frozen):
    binary_data_output: bool = False
    """What holds for outputs that do not say `binary_data` themselves."""


class InferenceRequest(Frozen):
    """The JSON of a request. Parameters that are unknown here are errors."""

    id: Name | None = None
    model_name: Name | None = None
    model_version: Name | None = None
    """Some clients repeat them; the address holds."""
    parameters: RequestParameters = RequestParameters()
    inputs: list[InputTensor] = Field(max_length=MAX_TENSORS)
    outputs: list[RequestedOutput] = Field(default=[], max_length=MAX_TENSORS)


@dataclass(frozen=True, slots=True)
class Tensor:
    """Values of shape `shape`: int64, float32, or bytes in an array of objects."""

    datatype: DataType
    values: NDArray[Any]


def unpacked(body: bytes, header_length: str | None) -> tuple[InferenceRequest, dict[str, Tensor]]:
    """A request's JSON, and its inputs by name. `header_length` is the header of that name.

    Raises InvalidInput, which points at what is wrong; TooLarge for more than MAX_JSON_BYTES.
    """
    num_json = _num_json_bytes(header_length, len(body))
    if num_json > MAX_JSON_BYTES:
        raise TooLarge(
            f"the JSON is larger than {MAX_JSON_BYTES} bytes: send tensors as binary data"
        )
    request = problems.valid(lambda: InferenceRequest.model_validate_json(body[:num_json]))
    rest = memoryview(body)[num_json:]
    tensors: dict[str, Tensor] = {}
    for described in request.inputs:
        if described.name in tensors:
            raise wrong(described.name, "the input is there twice")
        num_bytes = described.parameters.binary_data_size
        if (num_bytes is None) == (described.data is None):
            raise wrong(described.name, "give either data or the parameter binary_data_size")
        if num_bytes is None:
            values = _from_json(described)
        else:
            if num_bytes > len(rest):
                raise wrong(
                    described.name, f"binary_data_size is {num_bytes}, and {len(rest)} bytes follow"
                )
            values = _from_bytes(described, bytes(rest[:num_bytes]))
            rest = rest[num_bytes:]
        tensors[described.name] = Tensor(described.datatype, values.reshape(described.shape))
    if rest:
        raise InvalidInput(f"{len(rest)} bytes behind the JSON belong to no input")
    return request, tensors


def packed(content: dict[str, Any], pixels: Pixels, *, binary: bool) -> bytes:
    """The body of an answer with pictures [n, H, W, C] as its one output, `images`: all of it JSON,
    or JSON and behind it one byte a value."""
    output: dict[str, Any] = {"name": "images", "datatype": "UINT8", "shape": pixels.shape}
    if binary:
        output["parameters"] = {"binary_data_size": pixels.nbytes}
    else:
        output["data"] = pixels.ravel().tolist()
    text = json.dumps(content | {"outputs": [output]}, separators=(",", ":")).encode()
    return text + pixels.tobytes() if binary else text


def wrong(name: str, detail: str) -> InvalidInput:
    """What to raise for an input."""
    return InvalidInput(
        f"input {name}: {detail}", errors=[FieldError(pointer=f"/inputs/{name}", detail=detail)]
    )


def _num_json_bytes(header_length: str | None, num_bytes: int) -> int:
    if header_length is None:
        return num_bytes
    if not re.fullmatch(r"[0-9]{1,12}", header_length) or int(header_length) > num_bytes:
        raise InvalidInput(
            f"{HEADER_LENGTH} is {header_length[:20]!r}, and the body has {num_bytes} bytes"
        )
    return int(header_length)


def _from_json(described: InputTensor) -> NDArray[Any]:
    values = described.data or []
    for _ in described.shape[1:]:
        if set(map(type, values)) == {list}:
            values = list(chain.from_iterable(values))
    _check_count(described, len(values))
    types, dtype = _TYPES[described.datatype]
    if not set(map(type, values)) <= types:
        raise wrong(described.name, f"data has a value that is no {described.datatype}")
    if described.datatype == "BYTES":
        return _array([value.encode() for value in values])
    try:
        with np.errstate(over="raise"):
            array = np.array(values, np.int64 if dtype.kind == "i" else np.float64).astype(dtype)
    except (OverflowError, FloatingPointError) as error:
        raise wrong(
            described.name, f"data has a value that {described.datatype} cannot hold"
        ) from error
    return array


def _from_bytes(described: InputTensor, data: bytes) -> NDArray[Any]:
    if described.datatype == "BYTES":
        return _array(_elements(described, data))
    dtype = _TYPES[described.datatype][1]
    if len(data) % dtype.itemsize:
        raise wrong(described.name, f"{len(data)} bytes are no whole number of values")
    _check_count(described, len(data) // dtype.itemsize)
    return np.frombuffer(data, dtype)


def _elements(described: InputTensor, data: bytes) -> list[bytes]:
    """Of BYTES: each has its length, 4 bytes, before it."""
    elements: list[bytes] = []
    at = 0
    while at < len(data) and len(elements) <= MAX_ELEMENTS:
        start = at + 4
        if start > len(data):
            raise wrong(described.name, "the binary data ends within a length")
        at = start + struct.unpack_from("<I", data, at)[0]
        if at > len(data):
            raise wrong(described.name, "the binary data ends within an element")
        elements.append(data[start:at])
    _check_count(described, len(elements))
    return elements


def _check_count(described: InputTensor, count: int) -> None:
    if described.datatype == "BYTES" and count > MAX_ELEMENTS:
        raise wrong(described.name, f"at most {MAX_ELEMENTS} elements are taken")
    if count != math.prod(described.shape):
        raise wrong(described.name, f"shape {described.shape} and {count} values do not fit")


def _array(elements: Sequence[bytes]) -> NDArray[Any]:
    array = np.empty(len(elements), object)
    array[:] = elements
    return array


_TYPES: dict[DataType, tuple[set[type], np.dtype[Any]]] = {
    "INT64": ({int}, np.dtype("<i8")),
    "FP32": ({int, float}, np.dtype("<f4")),
    "BYTES": ({str}, np.dtype(object)),
}
"""What a value may be in JSON, and how it is kept; little-endian, as binary data is."""
