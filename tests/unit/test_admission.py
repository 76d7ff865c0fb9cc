"""Who is next: by table, and by rules that hold for any queue and any cluster."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.dispatcher.admission import (
    RESERVE_AFTER_S,
    Plan,
    Resources,
    Waiting,
    admit,
    demand,
    total,
)
from shared.schemas.jobs import Job, JobKind, JobState

TWO_CPUS = Resources(cpus=2)
LONG = RESERVE_AFTER_S


def waiting(job_id: str, cpus: float, *, waited_s: float = 0) -> Waiting:
    return Waiting(job_id, Resources(cpus=cpus), waited_s)


def job(kind: JobKind, **spec: object) -> Job:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    return Job(
        id="job-a",
        kind=kind,
        owner="o",
        state=JobState.QUEUED,
        spec=spec,
        priority=0,
        max_attempts=3,
        created_at=at,
        updated_at=at,
    )


@pytest.mark.parametrize(
    ("case", "ready", "held", "plan"),
    [
        ("an empty queue", [], 0, Plan([], {})),
        (
            "what fits starts in the given order",
            [waiting("a", 1), waiting("b", 1)],
            0,
            Plan(["a", "b"], {}),
        ),
        (
            "what runs counts",
            [waiting("a", 1), waiting("b", 1)],
            1,
            Plan(["a"], {"b": "waits for 1 CPU: 0 free of 2"}),
        ),
        (
            "a job that does not fit now is passed over",
            [waiting("a", 2), waiting("b", 1)],
            1,
            Plan(["b"], {"a": "waits for 2 CPUs: 1 free of 2"}),
        ),
        (
            "a job that never fits is passed over, however long it has waited",
            [waiting("a", 8, waited_s=10 * LONG), waiting("b", 2)],
            0,
            Plan(["b"], {"a": "needs 8 CPUs: the cluster has 2"}),
        ),
        (
            "a job that has waited long is not overtaken",
            [waiting("a", 2, waited_s=LONG), waiting("b", 1)],
            1,
            Plan(
                [],
                {
                    "a": "waits for 2 CPUs: 1 free of 2",
                    "b": "waits behind job a, which has waited longer",
                },
            ),
        ),
        (
            "one that is before it in the queue starts all the same",
            [waiting("b", 1), waiting("a", 2, waited_s=LONG)],
            1,
            Plan(["b"], {"a": "waits for 2 CPUs: 0 free of 2"}),
        ),
        (
            "more is held than there is: a node is gone",
            [waiting("a", 1)],
            5,
            Plan([], {"a": "waits for 1 CPU: 0 free of 2"}),
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_plans(case: str, ready: list[Waiting], held: float, plan: Plan) -> None:
    del case
    assert admit(ready, cluster=TWO_CPUS, held=Resources(cpus=held)) == plan


def test_a_reservation_keeps_only_what_its_job_needs() -> None:
    cluster = Resources(cpus=2, samplings=1)
    ready = [waiting("a", 2, waited_s=LONG), Waiting("b", Resources(samplings=1), 0)]
    plan = admit(ready, cluster=cluster, held=Resources(cpus=1))
    assert plan.start == ["b"]


@pytest.mark.parametrize(
    ("asked", "cluster", "needs"),
    [
        (job(JobKind.INGEST), TWO_CPUS, Resources(cpus=1)),
        (job(JobKind.ENCODE), TWO_CPUS, Resources(cpus=1)),
        (job(JobKind.EVALUATE), TWO_CPUS, Resources(cpus=1)),
        (job(JobKind.SAMPLE), TWO_CPUS, Resources(samplings=1)),
        (job(JobKind.TRAIN, workers=2), TWO_CPUS, Resources(cpus=2)),
        (job(JobKind.TRAIN, workers=2), Resources(cpus=8, gpus=1), Resources(cpus=2)),
        (job(JobKind.TRAIN, workers=2), Resources(cpus=8, gpus=4), Resources(gpus=2)),
    ],
)
def test_demand(asked: Job, cluster: Resources, needs: Resources) -> None:
    assert demand(asked, cluster) == needs


def test_what_may_come_counts_as_what_is_there() -> None:
    there, may_come = Resources(cpus=2, gpus=1), Resources(cpus=8)
    assert there | may_come == Resources(cpus=8, gpus=1)
    plan = admit([waiting("a", 4)], cluster=there | may_come, held=Resources(cpus=2))
    assert plan.start == ["a"]
    # Ranks go to GPUs that are still to come.
    grown = there | Resources(gpus=2)
    assert demand(job(JobKind.TRAIN, workers=2), grown) == Resources(gpus=2)


amounts = st.integers(0, 6)
resources = st.builds(Resources, cpus=amounts, gpus=amounts, samplings=amounts)
demands = resources.filter(lambda need: need != Resources())
ages = st.sampled_from([0.0, LONG - 1, LONG, 5 * LONG])
queues = st.lists(st.tuples(demands, ages), max_size=12).map(
    lambda rows: [Waiting(f"job-{i}", need, age) for i, (need, age) in enumerate(rows)]
)


@given(ready=queues, cluster=resources, held=resources)
def test_it_never_oversubscribes(ready: list[Waiting], cluster: Resources, held: Resources) -> None:
    plan = admit(ready, cluster=cluster, held=held)
    started = total(w.demand for w in ready if w.job_id in plan.start)
    assert started.lacking(cluster - held) is None


@given(ready=queues, cluster=resources, held=resources)
def test_each_job_either_starts_or_knows_what_it_waits_for(
    ready: list[Waiting], cluster: Resources, held: Resources
) -> None:
    plan = admit(ready, cluster=cluster, held=held)
    order = [w.job_id for w in ready]
    assert plan.start == [i for i in order if i in plan.start]
    assert sorted(plan.start + list(plan.reasons)) == sorted(order)


@given(ready=queues, cluster=resources, held=resources)
def test_no_job_waits_that_fits_unless_older_ones_have_reserved_it(
    ready: list[Waiting], cluster: Resources, held: Resources
) -> None:
    plan = admit(ready, cluster=cluster, held=held)
    free = cluster - held
    reserved = Resources()
    for w in ready:
        if w.job_id in plan.start:
            free = free - w.demand
        elif not w.demand.lacking(cluster):
            assert w.demand.lacking(free - reserved)
            if w.waited_s >= LONG:
                reserved += w.demand


@given(ready=queues, cluster=resources, held=resources)
def test_a_long_wait_is_never_lengthened_by_younger_jobs(
    ready: list[Waiting], cluster: Resources, held: Resources
) -> None:
    """Whatever starts behind a reserving job leaves it what it would have without them."""
    plan = admit(ready, cluster=cluster, held=held)
    for i, w in enumerate(ready):
        if w.waited_s < LONG or w.job_id in plan.start or w.demand.lacking(cluster):
            continue
        before = total(o.demand for o in ready[:i] if o.job_id in plan.start)
        behind = total(o.demand for o in ready[i + 1 :] if o.job_id in plan.start)
        free = cluster - held - before
        for name in ("cpus", "gpus", "samplings"):
            there, needed = getattr(free, name), getattr(w.demand, name)
            assert getattr(free - behind, name) >= min(there, needed)
