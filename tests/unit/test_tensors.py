"""What Triton's client packs comes out as it was, and it reads what we pack; damage is refused."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput

from services.serving import tensors
from services.serving.tensors import unpacked
from shared.errors import InvalidInput, TooLarge

shapes = st.lists(st.integers(1, 4), max_size=3)
values = {
    "INT64": st.integers(-(2**63), 2**63 - 1),
    "FP32": st.floats(width=32, allow_nan=False, allow_infinity=False),
    "BYTES": st.text(st.characters(exclude_categories=["Cs"]), max_size=20).map(str.encode),
}
DTYPES = {"INT64": np.int64, "FP32": np.float32, "BYTES": np.object_}


@st.composite
def arrays(draw: st.DrawFn) -> tuple[str, np.ndarray]:
    """A datatype and an array of it."""
    datatype = draw(st.sampled_from(sorted(values)))
    shape = draw(shapes)
    array: np.ndarray = np.empty(int(np.prod(shape)), DTYPES[datatype])
    array[:] = [draw(values[datatype]) for _ in array]
    return datatype, array.reshape(shape)


def sent(given: dict[str, tuple[str, np.ndarray]], *, binary: bool) -> tuple[bytes, str | None]:
    """The body and the header of Triton's client."""
    inputs = []
    for name, (datatype, array) in given.items():
        tensor = InferInput(name, list(array.shape), datatype)
        inputs.append(tensor.set_data_from_numpy(array, binary_data=binary))
    body, length = InferenceServerClient.generate_request_body(inputs)
    return body, None if length is None else str(length)


@given(st.dictionaries(st.sampled_from(["a", "b", "c"]), arrays(), min_size=1), st.booleans())
def test_tensors_are_what_the_client_packed(
    given: dict[str, tuple[str, np.ndarray]], binary: bool
) -> None:
    body, length = sent(given, binary=binary)
    request, found = unpacked(body, length)
    assert request.parameters.binary_data_output
    assert list(found) == list(given)
    for name, (datatype, array) in given.items():
        assert found[name].datatype == datatype
        assert found[name].values.shape == array.shape
        assert np.array_equal(found[name].values, array)


@given(st.lists(st.integers(1, 4), min_size=4, max_size=4), st.booleans())
def test_the_client_reads_the_pictures_that_we_pack(shape: list[int], binary: bool) -> None:
    pixels = np.arange(np.prod(shape)).astype(np.uint8).reshape(shape)
    body = tensors.packed({"model_name": "forger"}, pixels, binary=binary)
    length = len(body) - pixels.nbytes if binary else None
    result = InferenceServerClient.parse_response_body(body, header_length=length)
    assert result.get_response()["model_name"] == "forger"
    assert np.array_equal(result.as_numpy("images"), pixels)


GIVEN = {
    "z": ("FP32", np.ones((2, 3), np.float32)),
    "label": ("BYTES", np.array([b"boot", b"bag"], np.object_)),
    "seed": ("INT64", np.array([7])),
}


@given(st.binary(max_size=300), st.integers(0, 600), st.none() | st.text(max_size=9))
def test_garbage_is_refused_and_nothing_worse(garbage: bytes, cut: int, header: str | None) -> None:
    body, length = sent(GIVEN, binary=True)
    for damaged in (garbage, body[:cut], body[:cut] + garbage, body[:cut] + body[cut + 1 :]):
        for number in (length, header):
            if (damaged, number) != (body, length):
                _is_refused(damaged, number)


def _is_refused(body: bytes, header_length: str | None) -> None:
    """Or understood, in the few cases where what is left makes sense."""
    with suppress(InvalidInput, TooLarge):
        unpacked(body, header_length)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@given(
    st.lists(
        st.fixed_dictionaries(
            {},
            optional={
                "name": st.just("seed") | json_values,
                "shape": shapes | json_values,
                "datatype": st.sampled_from(sorted(values)) | json_values,
                "data": json_values,
                "parameters": st.just({"binary_data_size": 4}) | json_values,
            },
        ),
        max_size=3,
    ),
    st.binary(max_size=12),
)
def test_strange_json_is_refused_and_nothing_worse(inputs: list[Any], rest: bytes) -> None:
    text = json.dumps({"inputs": inputs}).encode()
    _is_refused(text, None)
    _is_refused(text + rest, str(len(text)))


def test_nested_lists_are_values_row_by_row() -> None:
    tensor = {"name": "z", "datatype": "FP32", "shape": [2, 3], "data": [[1, 2.5, 3], [4, 5, 6]]}
    _, found = unpacked(json.dumps({"inputs": [tensor]}).encode(), None)
    assert np.array_equal(found["z"].values, np.array([[1, 2.5, 3], [4, 5, 6]], np.float32))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": [1, 2]}, "do not fit"),
        ({"data": [1.5]}, "no INT64"),
        ({"data": [True]}, "no INT64"),
        ({"data": [[1]]}, "no INT64"),
        ({"data": [2**63]}, "cannot hold"),
        ({"data": [1e39], "datatype": "FP32"}, "cannot hold"),
        ({"data": [10**400], "datatype": "FP32"}, "cannot hold"),
        ({"data": ["1"], "datatype": "FP32"}, "no FP32"),
        ({"data": None}, "either data or"),
        ({"shape": [0]}, "greater than or equal to 1"),
        ({"shape": [1] * 5}, "at most 4"),
        ({"datatype": "FP16"}, "'INT64', 'FP32' or 'BYTES'"),
        ({"parameters": {"shared_memory_region": "a"}}, "not permitted"),
        ({"data": None, "parameters": {"binary_data_size": 8}}, "0 bytes follow"),
        ({"parameters": {"binary_data_size": 8}}, "either data or"),
    ],
)
def test_what_is_wrong_with_a_tensor_is_said(changes: dict[str, Any], message: str) -> None:
    tensor = {"name": "seed", "datatype": "INT64", "shape": [1], "data": [1]}
    body = json.dumps({"inputs": [tensor | changes]}).encode()
    with pytest.raises(InvalidInput, match=message):
        unpacked(body, None)


def test_elements_are_bounded() -> None:
    for binary in (True, False):
        body, length = sent({"p": ("BYTES", np.array([b""] * 1025, np.object_))}, binary=binary)
        with pytest.raises(InvalidInput, match="at most 1024"):
            unpacked(body, length)


def test_lists_within_lists_have_an_end() -> None:
    with pytest.raises(InvalidInput):
        unpacked(b'{"inputs":' + b"[" * 50_000, None)


def test_a_tensor_comes_once_and_leaves_nothing_behind() -> None:
    tensor = {"name": "seed", "datatype": "INT64", "shape": [1], "data": [1]}
    twice = json.dumps({"inputs": [tensor, tensor]}).encode()
    with pytest.raises(InvalidInput, match="twice"):
        unpacked(twice, None)
    once = json.dumps({"inputs": [tensor]}).encode()
    with pytest.raises(InvalidInput, match="3 bytes"):
        unpacked(once + b"abc", str(len(once)))
    with pytest.raises(TooLarge, match="binary data"):
        unpacked(b" " * (tensors.MAX_JSON_BYTES + 1), None)


def test_outputs_say_how_they_are_wanted() -> None:
    inputs = [InferInput("n", [1], "INT64").set_data_from_numpy(np.array([3]))]
    outputs = [InferRequestedOutput("images", binary_data=False)]
    body, length = InferenceServerClient.generate_request_body(inputs, outputs=outputs)
    request, _ = unpacked(body, str(length))
    assert [(o.name, o.parameters.binary_data) for o in request.outputs] == [("images", False)]
