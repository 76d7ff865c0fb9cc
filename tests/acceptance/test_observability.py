"""A stack that is watched: Prometheus scrapes it, and its spans go to a collector."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from services.client import Client
from services.local.identity import Identity, save_identity
from services.local.stack import start_detached, stop
from services.local.state import StackState
from shared.schemas.events import EventType
from tests.promtool import DEPLOY, needs_prometheus, series
from tests.roads import driver, push_squares, spec, until_type, wait_for
from tests.watching import Collector, Prometheus, collecting, prometheus

PATIENCE_S = 90.0
"""Ray exports every 10 s."""


@dataclass(frozen=True)
class Watched:
    """A stack with traces on, a dataset and the model `shapes` on it."""

    stack: StackState
    client: Client
    collector: Collector
    trained_trace: str
    """Of the training that made the model."""


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    data_dir = tmp_path_factory.mktemp("watched")
    save_identity(Identity(ports={}), data_dir)  # no familiar ports: another stack may have them
    with pytest.MonkeyPatch.context() as patch, collecting() as collector:
        patch.setenv("ELMYR_OTLP_ENDPOINT", collector.url)
        try:
            stack = start_detached(data_dir)
            with Client(data_dir=data_dir) as client:
                push_squares(client, tmp_path_factory.mktemp("upload"))
                job = client.wait(client.submit("train", spec(kimg=2.0)).id, timeout_s=240)
                assert job.traceparent
                yield Watched(stack, client, collector, job.traceparent.split("-")[1])
        finally:
            stop(data_dir)


def test_one_trace_leads_from_the_request_to_the_published_model(watched: Watched) -> None:
    wanted = {
        "POST /v1/jobs": "elmyr-api",
        "dispatch": "elmyr-dispatcher",
        "lease": "elmyr-dispatcher",
        "submit": "elmyr-dispatcher",
        "attempt": "elmyr-attempt",
        "train": "elmyr-attempt",
        "rank 0": "elmyr-attempt",
        "publish": "elmyr-attempt",
    }

    def spans() -> dict[str, str]:
        trace = watched.collector.trace(watched.trained_trace)
        return {name: span.service for name, span in trace.items()}

    wait_for(lambda: spans() == wanted, within_s=30, what=f"the spans come in: {spans()}")
    trace = watched.collector.trace(watched.trained_trace)
    names = {span.span_id: name for name, span in trace.items()}
    parents = {name: names.get(span.parent_id) for name, span in trace.items()}
    assert parents == {
        "POST /v1/jobs": None,
        "dispatch": "POST /v1/jobs",
        "lease": "dispatch",
        "submit": "dispatch",
        "attempt": "POST /v1/jobs",
        "train": "attempt",
        "rank 0": "train",
        "publish": "rank 0",
    }
    assert trace["attempt"].attributes["elmyr.kind"] == "train"
    assert trace["publish"].attributes["elmyr.model"] == "shapes"


def test_each_picture_has_a_trace_of_its_own(watched: Watched) -> None:
    def drawn() -> set[str]:
        return {
            span.trace_id
            for span in list(watched.collector.spans)
            if span.name == "generate" and span.service == "elmyr-serving"
        }

    for seed in (11, 12):
        watched.client.generate("shapes", seed=seed)
    wait_for(lambda: len(drawn()) == 2, within_s=30, what="two traces")
    assert watched.trained_trace not in drawn()
    spans = [span for span in watched.collector.spans if span.name == "generate"]
    assert {span.attributes["elmyr.seed"] for span in spans} == {"11", "12"}
    assert {span.attributes["elmyr.version"] for span in spans} == {"1"}


@needs_prometheus
def test_prometheus_sees_every_metric_and_the_dashboards_have_answers(
    watched: Watched, tmp_path: Path
) -> None:
    client = watched.client
    with prometheus(watched.stack, tmp_path) as watcher:
        # Train without end, and let serving draw meanwhile.
        job = client.submit("train", spec(workers=1, kimg=1e5, model="endless"))
        until_type(client.events(job.id), EventType.CHECKPOINT)
        for seed in range(3):
            client.generate("shapes", n=4, seed=seed)
        missing = set(series())

        def all_seen() -> bool:
            missing.difference_update([name for name in missing if watcher.query(name)])
            return not missing

        wait_for(all_seen, within_s=PATIENCE_S, what=f"these come: {missing}")
        assert watcher.targets() == {"api": "up", "dispatcher": "up", "ray": "up"}
        _training_is_shown(watcher, job.id)
        _expressions_are_understood(watcher)

        # Connected to Ray as it is, it still heeds SIGTERM.
        driver(watched.stack, job.id).terminate()
        wait_for(lambda: client.job(job.id).token == 2, within_s=PATIENCE_S, what="a new attempt")
        assert client.job(job.id).attempts[0].outcome == "interrupted"

        # A training that has ended is shown no more.
        client.cancel(job.id)
        wait_for(
            lambda: not watcher.query("ray_elmyr_training_kimg"),
            within_s=PATIENCE_S,
            what="its gauges go",
        )
        ends = 'elmyr_queue_attempts_total{kind="train", outcome="canceled"}'
        wait_for(lambda: _value(watcher, ends) == 1, within_s=30, what="its end is counted")


def _training_is_shown(watcher: Prometheus, job_id: str) -> None:
    for name in ("images_per_second", "kimg", "progress_ratio", "checkpoint_bytes"):
        gauge = f'ray_elmyr_training_{name}{{job_id="{job_id}"}}'
        wait_for(partial(_value, watcher, gauge), within_s=PATIENCE_S, what=gauge)
    assert _value(watcher, 'elmyr_device_seconds_total{owner="local", device="cpu"}') > 0
    assert _value(watcher, 'elmyr_queue_attempts_total{kind="train", outcome="succeeded"}') == 1
    drawn = 'ray_elmyr_serving_requests_total{deployment="interactive", endpoint="generate"}'
    wait_for(lambda: _value(watcher, drawn) >= 3, within_s=30, what="all pictures are counted")
    assert _value(watcher, 'ray_elmyr_serving_models_loaded{deployment="interactive"}') == 1


def _expressions_are_understood(watcher: Prometheus) -> None:
    rules = [rule for group in watcher.groups() for rule in group["rules"]]
    assert rules
    assert all(rule["health"] == "ok" for rule in rules), rules
    for file in (DEPLOY / "grafana" / "dashboards").glob("*.json"):
        for panel in json.loads(file.read_text())["panels"]:
            for target in panel["targets"]:
                text = target["expr"].replace("$__rate_interval", "5m").replace("$job_id", ".*")
                found = watcher.query(text)
                may_be_empty = text.endswith("> 0") or "bulk" in text
                assert found or may_be_empty, (file.name, panel["title"], text)


def _value(watcher: Prometheus, expression: str) -> float:
    return sum(float(found["value"][1]) for found in watcher.query(expression))
