"""The API answers as its OpenAPI document says, whatever it is sent.

Schemathesis makes up right and wrong requests from the document; the draws are the same each time.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator

import httpx2
import pytest
import schemathesis
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import SecretStr
from schemathesis import APIOperation, Case, GenerationMode, Response
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from services.api.openapi import document
from services.local.servers import S3Server
from shared.schemas.jobs import JobKind, JobSubmission, Outcome
from shared.schemas.presets import PRESETS
from shared.schemas.recipes import GanConfig, ReplayConfig
from shared.settings import Settings
from tests.live import KEY, Live, live_api

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
NUM_EXAMPLES = 60
PATIENCE_S = 60.0
ENDED = "job-ended"
"""A job that is there and has succeeded: no request moves it, and its event stream ends."""

SCHEMA = schemathesis.openapi.from_dict(json.loads(document()))
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=9)
)
NAMES = st.sampled_from([*GanConfig.model_fields, *ReplayConfig.model_fields, "lr", "size", "x/~y"])
OVERRIDES = st.dictionaries(
    NAMES, SCALARS | st.lists(SCALARS, max_size=2) | st.dictionaries(NAMES, SCALARS, max_size=3)
)
OPERATIONS = {found.ok().label: found.ok() for found in SCHEMA.get_all_operations()}


@pytest.fixture(scope="module")
def live(redis_url: str, s3: S3Server) -> Iterator[Live]:
    name = f"schema-{uuid.uuid4().hex[:8]}"
    settings = Settings.model_validate(
        {
            "redis_url": SecretStr(redis_url),
            "queue_name": name,
            "s3_bucket": name,
            **s3.settings(),
        }
    )
    with live_api(settings) as live:
        live.add_dataset("garments", num_classes=3)
        live.add_dataset("shoes")  # no request made up below deletes this one
        submission = JobSubmission(kind=JobKind.SAMPLE, spec={"model": "tailor", "n": 3})
        live.queue.submit(ENDED, submission, owner="tester")
        live.end(live.start(ENDED), Outcome.SUCCEEDED)
        yield live


def cases(operation: APIOperation) -> st.SearchStrategy[Case]:
    """Requests that are right, requests that are wrong, and some about what is there."""
    there = {"job_id": ENDED, "name": "garments"}
    wanted = {p.name for p in operation.path_parameters}
    known = {name: value for name, value in there.items() if name in wanted}
    modes = [GenerationMode.POSITIVE, GenerationMode.NEGATIVE]
    made_up = [operation.as_strategy(generation_mode=mode) for mode in modes]
    if not known:
        return st.one_of(made_up)
    return st.one_of(*made_up, operation.as_strategy(path_parameters=known))


def call(live: Live, case: Case) -> Response:
    headers = {"Authorization": f"Bearer {KEY}"}
    return case.call(base_url=live.url, headers=headers, timeout=PATIENCE_S)


@pytest.mark.parametrize("label", OPERATIONS)
def test_every_answer_is_one_that_the_document_knows(live: Live, label: str) -> None:
    @hypothesis_settings(max_examples=NUM_EXAMPLES, database=None)
    @given(case=cases(OPERATIONS[label]))
    def check(case: Case) -> None:
        answer = call(live, case)
        if answer.status_code == 503:  # a disk may stall for seconds; what is wrong stays wrong
            time.sleep(float(answer.headers["retry-after"][0]))
            answer = call(live, case)
        case.validate_response(answer, checks=CHECKS)

    check()


@given(preset=st.sampled_from([*PRESETS, "x"]), config=OVERRIDES, workers=SCALARS, seed=SCALARS)
def test_no_override_of_a_preset_is_an_error_of_the_server(
    live: Live, preset: str, config: object, workers: object, seed: object
) -> None:
    spec = {"dataset": "shoes", "model": "tailor", "preset": preset}
    spec |= {"config": config, "workers": workers, "seed": seed}
    answer = httpx2.post(
        f"{live.url}/v1/jobs?validate_only=true",
        json={"kind": "train", "spec": spec},
        headers={"Authorization": f"Bearer {KEY}"},
        timeout=PATIENCE_S,
    )
    assert answer.status_code in (200, 422), answer.text
