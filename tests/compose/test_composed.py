"""What only containers can show: what they may, what Prometheus sees, what comes back by itself."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from services.client import Client
from services.local.ports import LOOPBACK
from shared.schemas.events import EventType
from shared.schemas.jobs import JobState
from tests.compose.system import PARTS, System
from tests.compose.telling import say, told
from tests.roads import push_squares, spec, until_type, wait_for
from tests.watching import Prometheus

SCRAPED = {"api": 1, "dispatcher": 1, "ray": 2}
"""Targets by job; of Ray the head and one worker."""
OF_EACH = (
    "elmyr_queue_jobs",
    "elmyr_dispatcher_ray_up",
    "ray_node_mem_used",
    "ray_elmyr_serving_models_loaded",
)


def test_every_container_is_contained(system: System) -> None:
    containers = system.inspect(*PARTS)
    assert len(containers) == len(PARTS)
    for container in containers:
        name, host = container["Name"], container["HostConfig"]
        assert container["Config"]["User"].split(":")[0] not in ("", "0", "root"), name
        assert host["ReadonlyRootfs"], name
        assert host["CapDrop"] == ["ALL"], name
        assert host["SecurityOpt"] == ["no-new-privileges:true"], name
        assert not host["Privileged"], name
        assert host["Memory"] > 0, name
        assert host["NanoCpus"] > 0, name
        assert host["PidsLimit"] > 0, name
        assert host["RestartPolicy"]["Name"] == "unless-stopped", name
        for bindings in host["PortBindings"].values():
            assert {binding["HostIp"] for binding in bindings} == {LOOPBACK}, name


def test_no_secret_shows_in_the_engine(system: System, environment: dict[str, str]) -> None:
    seen = json.dumps(system.inspect(*PARTS))
    for file in Path(environment["SECRETS"]).iterdir():
        for word in _words(file.read_text()):
            assert word not in seen, file.name


def _words(secret: str) -> list[str]:
    """The parts of a secret that are long enough to be secret: of the URL the password."""
    marks = str.maketrans(dict.fromkeys('/:@{}[]", ', " "))
    return [word for word in secret.translate(marks).split() if len(word) >= 20]


@pytest.mark.parametrize("module", ["torch", "ray"])
def test_torch_and_ray_are_where_they_are_needed(system: System, module: str) -> None:
    looked = f"import importlib.util as u; print(bool(u.find_spec({module!r})))"
    assert system.execute("api", "python", "-c", looked).stdout.strip() == "False"
    assert system.execute("ray-worker", "python", "-c", looked).stdout.strip() == "True"


def test_prometheus_scrapes_every_part(system: System, environment: dict[str, str]) -> None:
    del system
    prometheus = Prometheus(f"http://{LOOPBACK}:{environment['PROMETHEUS_PORT']}")

    def up() -> dict[str, int]:
        found = prometheus.query("count by (job) (up == 1)")
        return {one["metric"]["job"]: int(one["value"][1]) for one in found}

    wait_for(lambda: up() == SCRAPED, within_s=120, what=f"all targets are up: {up()}")
    for name in OF_EACH:
        wait_for(partial(prometheus.query, name), within_s=120, what=name)
    rules = [rule for group in prometheus.groups() for rule in group["rules"]]
    assert rules
    assert {rule["health"] for rule in rules} == {"ok"}


@pytest.mark.parametrize("part", PARTS)
def test_a_part_that_crashes_comes_back_and_the_training_goes_on(
    system: System, client: Client, training: str, part: str
) -> None:
    attempts = len(client.job(training).attempts)
    with told(f"{part} crashes; all are healthy again"):
        started_at = system.started_at(part)
        system.crash(part)
        wait_for(lambda: system.started_at(part) != started_at, within_s=120, what="it starts anew")
        system.wait_healthy(within_s=300)
    with told("the training goes on"):
        before = kimg(client, training)
        wait_for(lambda: kimg(client, training) != before, within_s=300, what="it goes on")
    say(f"       attempts that ended meanwhile: {len(client.job(training).attempts) - attempts}")


@pytest.fixture(scope="module")
def training(client: Client, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A training without end that has a checkpoint; it is canceled at the end."""
    push_squares(client, tmp_path_factory.mktemp("upload"))
    job_id = client.submit("train", spec(workers=1, kimg=1e6, model="survivor")).id
    until_type(client.events(job_id), EventType.CHECKPOINT)
    yield job_id
    client.cancel(job_id)
    canceled = JobState.CANCELED
    wait_for(lambda: client.job(job_id).state is canceled, within_s=120, what="it is canceled")


def kimg(client: Client, job_id: str) -> float:
    return client.job(job_id).progress.kimg or 0
