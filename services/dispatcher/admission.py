"""Who is next: pure functions of what waits, what runs and what the cluster has.

Nothing here reads a clock, asks Ray or changes the queue.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields

from shared.schemas.jobs import Job, JobKind

MAX_SAMPLING_JOBS = 4
"""They share the bulk deployment: more at once would end later, not sooner."""

RESERVE_AFTER_S = 600.0
"""A job that could run on the empty cluster and has waited so long is not overtaken any more."""


@dataclass(frozen=True, slots=True)
class Resources:
    """What jobs hold, and what there is of it; never negative."""

    cpus: float = 0
    gpus: float = 0
    samplings: float = 0
    """Places for sampling jobs, which hold nothing of the cluster."""

    def __add__(self, other: Resources) -> Resources:
        return Resources(*(getattr(self, name) + getattr(other, name) for name in WORDS))

    def __sub__(self, other: Resources) -> Resources:
        """What is left; 0 where `other` is more."""
        return Resources(*(max(getattr(self, name) - getattr(other, name), 0) for name in WORDS))

    def __or__(self, other: Resources) -> Resources:
        """The larger of the two, resource by resource."""
        return Resources(*(max(getattr(self, name), getattr(other, name)) for name in WORDS))

    def lacking(self, there: Resources) -> str | None:
        """The first resource of which `there` is too little for this."""
        return next(
            (name for name in WORDS if getattr(self, name) > getattr(there, name)),
            None,
        )


WORDS = {"cpus": "CPU", "gpus": "GPU", "samplings": "place for sampling"}
assert list(WORDS) == [field.name for field in fields(Resources)]

PLURALS = {"place for sampling": "places for sampling"}


@dataclass(frozen=True, slots=True)
class Waiting:
    """A job that may be leased."""

    job_id: str
    demand: Resources
    waited_s: float


@dataclass(frozen=True, slots=True)
class Plan:
    """What to lease now, in this order, and what each of the others waits for."""

    start: list[str]
    reasons: dict[str, str]


def demand(job: Job, cluster: Resources) -> Resources:
    """What a job holds while it is active. Ranks train on GPUs if the cluster has one for each."""
    return DEMANDS[job.kind](job, cluster)


def _train(job: Job, cluster: Resources) -> Resources:
    workers = job.spec.get("workers", 1)
    return Resources(gpus=workers) if cluster.gpus >= workers else Resources(cpus=workers)


DEMANDS: dict[JobKind, Callable[[Job, Resources], Resources]] = {
    JobKind.TRAIN: _train,
    JobKind.INGEST: lambda job, cluster: Resources(cpus=1),
    JobKind.ENCODE: lambda job, cluster: Resources(cpus=1),
    JobKind.EVALUATE: lambda job, cluster: Resources(cpus=1),
    JobKind.SAMPLE: lambda job, cluster: Resources(samplings=1),
}


def total(demands: Iterable[Resources]) -> Resources:
    """The sum of what several jobs hold."""
    return sum(demands, start=Resources())


def admit(ready: Sequence[Waiting], *, cluster: Resources, held: Resources) -> Plan:
    """Lease what fits, in the order of `ready` (priority, then age).

    A job that does not fit is passed over, so that it does not block smaller ones; but once it has
    waited RESERVE_AFTER_S, what is free of its demand is kept for it. A job that the whole cluster
    could not hold is never waited for.
    """
    start: list[str] = []
    reasons: dict[str, str] = {}
    free = cluster - held  # nobody holds it
    open_ = free  # nobody holds it and nobody has reserved it
    reserved_for = ""
    for waiting in ready:
        need = waiting.demand
        if short := need.lacking(cluster):
            reasons[waiting.job_id] = _never(short, need, cluster)
        elif not need.lacking(open_):
            start.append(waiting.job_id)
            free, open_ = free - need, open_ - need
        else:
            short = need.lacking(free)
            reasons[waiting.job_id] = (
                _not_now(short, need, free, cluster)
                if short
                else f"waits behind job {reserved_for}, which has waited longer"
            )
            if waiting.waited_s >= RESERVE_AFTER_S:
                open_ = open_ - need
                reserved_for = reserved_for or waiting.job_id
    return Plan(start, reasons)


def _never(name: str, need: Resources, cluster: Resources) -> str:
    return f"needs {_amount(name, need)}: the cluster has {getattr(cluster, name):g}"


def _not_now(name: str, need: Resources, free: Resources, cluster: Resources) -> str:
    return (
        f"waits for {_amount(name, need)}: "
        f"{getattr(free, name):g} free of {getattr(cluster, name):g}"
    )


def _amount(name: str, resources: Resources) -> str:
    number, word = getattr(resources, name), WORDS[name]
    return f"{number:g} {word if number == 1 else PLURALS.get(word, word + 's')}"
