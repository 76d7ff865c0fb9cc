"""More jobs bring more Ray nodes, more requests more replicas, idleness brings both down."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray.serve.autoscaling_policy import replica_queue_length_autoscaling_policy as serves_own
from ray.serve.config import AutoscalingConfig

from services.serving.app import TARGET_ONGOING, app
from services.serving.scaling import MAX_GROWTH, desired_replicas
from shared.settings import Settings
from tests.manifests import (
    BUILDS,
    Object,
    cluster_spec,
    named,
    quantity,
    rendered,
    settings_of,
)
from tests.scaling import (
    BOOT_S,
    DRAWN_PER_S,
    LOAD,
    TICK_S,
    Load,
    Moment,
    Policy,
    ServeMoment,
    load,
    ongoing,
    serving,
    training,
)

IDLE_S = 120.0
"""idleTimeoutSeconds of both clusters."""
THREE_HOURS_S = 3 * 3600.0


def settings(build: str) -> Settings:
    values = {k.removeprefix("ELMYR_").lower(): v for k, v in settings_of(rendered(build)).items()}
    return Settings.model_validate(values)


def capacity(ray: Object, name: str) -> int:
    """What all groups of workers have of a resource when each is as large as it may be."""
    groups = cluster_spec(ray)["workerGroupSpecs"]
    return sum(g["maxReplicas"] * int(g["rayStartParams"].get(name, "0")) for g in groups)


@pytest.mark.parametrize("build", BUILDS)
def test_jobs_are_admitted_against_what_the_training_cluster_may_grow_to(build: str) -> None:
    ray = named(rendered(build), "RayCluster", "training")
    assert settings(build).ray_max_cpus == capacity(ray, "num-cpus")
    assert settings(build).ray_max_gpus == capacity(ray, "num-gpus")


@pytest.mark.parametrize("build", BUILDS)
def test_there_is_a_pod_for_each_replica_that_serve_may_want(build: str) -> None:
    config, ray = settings(build), named(rendered(build), "RayService", "serving")
    (group,) = cluster_spec(ray)["workerGroupSpecs"]
    most = config.serve_max_replicas + config.serve_bulk_max_replicas
    assert capacity(ray, "num-cpus") == most
    least = config.serve_min_replicas + config.serve_bulk_min_replicas
    assert group["minReplicas"] == group["replicas"] == least


def test_kueues_quota_holds_the_training_cluster_at_its_largest() -> None:
    objects = rendered("overlays/kueue")
    spec = named(objects, "RayCluster", "training")["spec"]
    (resources,) = named(objects, "ClusterQueue", "elmyr")["spec"]["resourceGroups"]
    quotas = {
        flavor["name"]: {r["name"]: quantity(r["nominalQuota"]) for r in flavor["resources"]}
        for flavor in resources["flavors"]
    }
    groups = {group["groupName"]: group for group in spec["workerGroupSpecs"]}

    def requests(template: Object, name: str) -> float:
        (container,) = template["spec"]["containers"]
        return quantity(container["resources"]["requests"][name])

    for name in ("cpu", "memory"):
        head = requests(spec["headGroupSpec"]["template"], name)
        autoscaler = quantity(spec["autoscalerOptions"]["resources"]["requests"][name])
        workers = {g: requests(w["template"], name) * w["maxReplicas"] for g, w in groups.items()}
        assert quotas["elmyr-on-demand"][name] >= head + autoscaler + workers["cpu"]
        assert quotas["elmyr-spot"][name] >= workers["spot"]


def direction_changes(counts: Iterable[int]) -> int:
    """How often a series turns from growing to shrinking or back."""
    steps = [b - a for a, b in itertools.pairwise(counts) if a != b]
    return sum(1 for a, b in itertools.pairwise(steps) if (a > 0) != (b > 0))


def simulated(load: Load) -> list[Moment]:
    ray = named(rendered("base"), "RayCluster", "training")
    return training(ray, max_cpus=settings("base").ray_max_cpus, until_s=THREE_HOURS_S, load=load)


@pytest.fixture(scope="module")
def trained() -> list[Moment]:
    return simulated(LOAD)


def test_every_job_ends_and_the_training_cluster_is_gone_after_it(trained: list[Moment]) -> None:
    check_end(trained)


def check_end(trained: list[Moment]) -> None:
    last = trained[-1]
    assert (last.waiting, last.pending, last.working) == (0, 0, 0)
    assert last.nodes.total() == 0
    # Each time that the last rank has ended, the last node follows.
    for before, after in itertools.pairwise(trained):
        if before.held_cpus and not after.held_cpus:
            at = int((after.at_s + IDLE_S) / TICK_S) + 2
            assert trained[at].nodes.total() == 0 or any(
                m.held_cpus for m in trained[int(after.at_s / TICK_S) : at]
            )


def test_the_training_cluster_stays_within_its_bounds(trained: list[Moment]) -> None:
    for moment in trained:
        assert moment.held_cpus <= 24
        assert moment.nodes["cpu"] <= 4
        assert moment.nodes["spot"] <= 8


def test_more_jobs_bring_more_nodes_up_to_the_bound_and_no_further(trained: list[Moment]) -> None:
    for moment in trained:
        # There is, or comes, a node for whatever was admitted.
        assert 2 * moment.nodes.total() >= moment.held_cpus
    # In the rush the cluster is full and the rest waits in the queue, where it can be reordered.
    assert max(moment.waiting for moment in trained) > 0
    assert max(moment.nodes.total() for moment in trained) == 12
    for moment in trained:
        if moment.waiting:
            assert moment.held_cpus >= 24 - max(row["workers"] for row in LOAD["jobs"]) + 1


def test_an_admitted_job_has_its_place_when_its_nodes_have_started(trained: list[Moment]) -> None:
    longest = run = 0
    for moment in trained[: int(900 / TICK_S)]:
        run = run + 1 if moment.pending else 0
        longest = max(longest, run)
    assert longest * TICK_S <= 2 * BOOT_S  # two jobs, one after the other


def test_spot_machines_come_when_the_others_are_all_there(trained: list[Moment]) -> None:
    for before, after in itertools.pairwise(trained):
        if after.nodes["spot"] > before.nodes["spot"]:
            assert after.nodes["cpu"] == 4


def test_nodes_do_not_come_and_go_while_jobs_wait_for_them(trained: list[Moment]) -> None:
    # Three rushes: each up once and down once.
    assert direction_changes(m.nodes.total() for m in trained) == 5


def served(policy: Policy, load: Load = LOAD) -> list[ServeMoment]:
    config = settings("base")
    bounds = {
        "min_replicas": config.serve_min_replicas,
        "max_replicas": config.serve_max_replicas,
    }
    deployed = app._bound_deployment._deployment_config.autoscaling_config
    scaling = AutoscalingConfig(**deployed.model_dump() | bounds)
    ray = named(rendered("base"), "RayService", "serving")
    return serving(ray, scaling, policy, until_s=THREE_HOURS_S, load=load)


@pytest.fixture(scope="module")
def moments() -> list[ServeMoment]:
    return served(desired_replicas)


def test_a_recorded_load_brings_nodes_and_replicas_and_takes_them_down() -> None:
    recorded = load("recorded_load")
    trained = simulated(recorded)
    check_end(trained)
    for moment in trained:
        assert 2 * moment.nodes.total() >= moment.held_cpus
    assert max(moment.nodes.total() for moment in trained) > 0
    moments = served(desired_replicas, recorded)
    assert all(m.wanted in range(2, 7) and m.replicas <= m.nodes <= 8 for m in moments)
    assert direction_changes(m.wanted for m in moments) <= 1
    assert (moments[-1].wanted, moments[-1].replicas) == (2, 2)


def test_the_deployment_scales_by_our_rule() -> None:
    policy = app._bound_deployment._deployment_config.autoscaling_config.policy
    assert policy.get_policy()(context(3, 0.0)) == desired_replicas(context(3, 0.0)) == (2, {})


def test_replicas_stay_within_their_bounds_and_have_a_pod_each(
    moments: list[ServeMoment],
) -> None:
    assert {m.wanted for m in moments} <= set(range(2, 7))
    assert all(m.replicas <= m.nodes <= 8 for m in moments)


def test_more_requests_bring_more_replicas_and_silence_brings_them_down(
    moments: list[ServeMoment],
) -> None:
    rush = [m for m in moments if m.per_s == max(LOAD["requests_per_s"])]
    enough = math.ceil(rush[0].per_s / max(DRAWN_PER_S.values()))
    assert rush[-1].replicas >= enough
    assert moments[0].wanted < enough
    assert (moments[-1].wanted, moments[-1].replicas, moments[-1].nodes) == (2, 2, 2)


def test_replicas_do_not_come_and_go_under_a_steady_load(moments: list[ServeMoment]) -> None:
    # Up with the rush, down after it; the second, smaller one is served by what is still there.
    assert direction_changes(m.wanted for m in moments) == 1
    rush = [m for m in moments if m.per_s == max(LOAD["requests_per_s"])]
    settled = [m for m in rush if m.at_s > rush[0].at_s + 300]
    assert len({m.wanted for m in settled}) == 1
    assert all(m.ongoing < TARGET_ONGOING * m.replicas for m in settled)


def test_serves_own_rule_would_let_them_come_and_go() -> None:
    """Why there is services/serving/scaling.py; once this fails, it may not be needed any more."""
    assert direction_changes(m.wanted for m in served(serves_own)) > 10


def context(replicas: int, requests: float, *, wanted: int | None = None) -> SimpleNamespace:
    config = SimpleNamespace(get_target_ongoing_requests=lambda: TARGET_ONGOING)
    return SimpleNamespace(
        current_num_replicas=replicas,
        target_num_replicas=wanted or replicas,
        total_num_requests=requests,
        config=config,
    )


def queue_of_one(per_s: float) -> float:
    """Ongoing requests where one after the other takes 1 ms, come at random (M/D/1)."""
    load = per_s / 1000
    return load + load**2 / (2 * (1 - load)) if load < 1 else math.inf


@pytest.mark.parametrize("curve", [ongoing, queue_of_one])
@given(replicas=st.integers(2, 50), per_s=st.floats(0, 999))
def test_the_others_can_carry_what_a_spare_replica_did(
    curve: Callable[[float], float], replicas: int, per_s: float
) -> None:
    wanted, _ = desired_replicas(context(replicas, replicas * curve(per_s)))
    if wanted < replicas:
        assert wanted == replicas - 1
        after = curve(per_s * replicas / wanted)
        assert desired_replicas(context(int(wanted), wanted * after))[0] <= wanted


@given(replicas=st.integers(1, 50), requests=st.floats(0, 1e6))
def test_the_rule_grows_by_at_most_twice_and_shrinks_by_at_most_one(
    replicas: int, requests: float
) -> None:
    wanted, state = desired_replicas(context(replicas, requests))
    assert replicas - 1 <= wanted <= MAX_GROWTH * replicas
    assert state == {}


@pytest.mark.parametrize("requests", [2.0, 64.0, 65.0, 1e6])
def test_replicas_that_are_still_starting_are_waited_for(requests: float) -> None:
    assert desired_replicas(context(2, requests, wanted=6)) == (6, {})


def test_from_no_replica_it_changes_nothing() -> None:
    assert desired_replicas(context(0, 5.0)) == (0, {})
