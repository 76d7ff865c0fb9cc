"""What the manifests' clusters do under a load, in simulated time.

The decisions are those of the parts themselves: our admission, the scheduler of Ray's autoscaler,
Serve's policy. Only the world around them is made up: how long a pod takes to start, how long a job
works, how fast a replica draws.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ray.autoscaler._private.kuberay.autoscaling_config import (
    _derive_autoscaling_config_from_ray_cr,
)
from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig
from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
from ray.autoscaler.v2.schema import AutoscalerInstance
from ray.autoscaler.v2.utils import ResourceRequestUtil
from ray.core.generated.autoscaler_pb2 import GangResourceRequest, NodeState
from ray.core.generated.instance_manager_pb2 import Instance
from ray.serve import autoscaling_policy as serve_policy
from ray.serve.config import AutoscalingConfig as ServeAutoscaling
from ray.serve.config import AutoscalingContext

from services.dispatcher.admission import Resources, Waiting, admit, demand, total
from shared.schemas.jobs import Job, JobKind, JobState
from tests.manifests import Object, cluster_spec

TICK_S = 5.0
"""The pace of Ray's autoscaler."""
BOOT_S = 60.0
"""From the wish for a pod to a Ray node, where its image is on the machine."""
DRAWN_PER_S = {1: 565.0, 8: 1210.0, 64: 2000.0}
"""Pictures that a replica draws a second, by ongoing requests: from the README."""
MAX_BACKLOG = 2048.0
"""Beyond it a replica answers 429 (serve_max_waiting_images)."""

Load = dict[str, Any]
"""`jobs`, rows of at_s, kind, workers and runs_s, how long the ranks work once they are placed; and
`requests_per_s`, of single pictures, one figure a minute."""


def load(name: str) -> Load:
    """A load of tests/data; `about` says where it is from."""
    answer: Load = json.loads((Path(__file__).parent / "data" / f"{name}.json").read_text())
    return answer


LOAD = load("load")

Bundle = dict[str, float]


@dataclass
class Node:
    """A worker pod."""

    id: str
    group: str
    up_at: float
    has: Bundle
    free: Bundle = field(default_factory=dict)
    idle_since: float = 0.0

    def __post_init__(self) -> None:
        self.free = dict(self.has)
        self.idle_since = self.up_at

    def take(self, bundle: Bundle) -> bool:
        """Hold the bundle here, if there is place for it."""
        if any(self.free.get(name, 0) < amount for name, amount in bundle.items()):
            return False
        for name, amount in bundle.items():
            self.free[name] -= amount
        return True

    def give(self, bundle: Bundle, now: float) -> None:
        for name, amount in bundle.items():
            self.free[name] += amount
        self.idle_since = now


class Cluster:
    """The worker pods of one of the manifests' Ray clusters, under Ray's autoscaler."""

    def __init__(self, ray: Object) -> None:
        metadata = {"name": ray["metadata"]["name"], "namespace": "elmyr"}
        derived = _derive_autoscaling_config_from_ray_cr(
            {"metadata": metadata, "spec": cluster_spec(ray)}
        )
        self._config = AutoscalingConfig(derived, skip_content_hash=True)
        self._types = self._config.get_node_type_configs()
        self._scheduler = ResourceDemandScheduler(event_logger=None)
        self._ids = itertools.count()
        self.nodes: list[Node] = []
        for name, config in self._types.items():
            for _ in range(config.min_worker_nodes):
                self._launch(name, up_at=0.0)

    def up(self, now: float) -> list[Node]:
        return [node for node in self.nodes if node.up_at <= now]

    def place(self, bundles: list[Bundle], now: float) -> list[tuple[Node, Bundle]] | None:
        """All of the bundles on nodes that are up, or None."""
        placed: list[tuple[Node, Bundle]] = []
        for bundle in bundles:
            node = next((node for node in self.up(now) if node.take(bundle)), None)
            if node is None:
                for other, taken in placed:
                    other.give(taken, other.idle_since)
                return None
            placed.append((node, bundle))
        return placed

    def scale(self, pending: Iterable[list[Bundle]], now: float) -> None:
        """Launch and terminate what the autoscaler says to what finds no place; several bundles
        of one are a placement group."""
        groups = list(pending)
        requests = [ResourceRequestUtil.make(bundles[0]) for bundles in groups if len(bundles) == 1]
        gangs = [
            GangResourceRequest(requests=[ResourceRequestUtil.make(b) for b in bundles])
            for bundles in groups
            if len(bundles) > 1
        ]
        reply = self._scheduler.schedule(
            SchedulingRequest(
                node_type_configs=self._types,
                max_num_nodes=self._config.get_max_num_nodes(),
                idle_timeout_s=self._config.get_idle_timeout_s(),
                disable_launch_config_check=True,
                resource_requests=ResourceRequestUtil.group_by_count(requests),
                gang_resource_requests=gangs,
                current_instances=[self._instance(node, now) for node in self.nodes],
            )
        )
        gone = {request.instance_id for request in reply.to_terminate}
        self.nodes = [node for node in self.nodes if node.id not in gone]
        for launch in reply.to_launch:
            for _ in range(launch.count):
                self._launch(launch.instance_type, up_at=now + BOOT_S)

    def _launch(self, group: str, *, up_at: float) -> None:
        node_id = f"{group}-{next(self._ids)}"
        self.nodes.append(Node(node_id, group, up_at, dict(self._types[group].resources)))

    def _instance(self, node: Node, now: float) -> AutoscalerInstance:
        is_up = node.up_at <= now
        instance = Instance(
            instance_id=node.id,
            cloud_instance_id=node.id,
            node_id=node.id,
            instance_type=node.group,
            status=Instance.RAY_RUNNING if is_up else Instance.REQUESTED,
        )
        idle_s = now - node.idle_since if node.free == node.has else 0.0
        state = NodeState(
            node_id=node.id.encode(),
            ray_node_type_name=node.group,
            total_resources=node.has,
            available_resources=node.free,
            idle_duration_ms=int(1000 * idle_s),
        )
        return AutoscalerInstance(
            cloud_instance_id=node.id, ray_node=state if is_up else None, im_instance=instance
        )


@dataclass(frozen=True)
class Moment:
    """What is so after a tick."""

    at_s: float
    waiting: int
    """Jobs in the queue."""
    pending: int
    """Jobs that were admitted and have no place yet."""
    working: int
    held_cpus: float
    nodes: Counter[str]
    """By group, those included that start."""


def training(ray: Object, *, max_cpus: float, until_s: float, load: Load = LOAD) -> list[Moment]:
    """The load's jobs through our admission onto a cluster that scales itself."""
    cluster = Cluster(ray)
    limit = Resources(cpus=max_cpus)
    to_come = deque(
        (row["at_s"], row["runs_s"], _job(i, row)) for i, row in enumerate(load["jobs"])
    )
    waiting: list[tuple[float, float, Job]] = []
    pending: list[tuple[float, Job]] = []
    working: list[tuple[float, Job, list[tuple[Node, Bundle]]]] = []
    moments = []
    for now in _ticks(until_s):
        while to_come and to_come[0][0] <= now:
            waiting.append(to_come.popleft())

        # Ranks end.
        for _, _, placed in [row for row in working if row[0] <= now]:
            for node, bundle in placed:
                node.give(bundle, now)
        working = [row for row in working if row[0] > now]

        # The dispatcher admits.
        there = Resources(cpus=sum(node.has["CPU"] for node in cluster.up(now))) | limit
        active = [row[1] for row in (*pending, *working)]
        plan = admit(
            [Waiting(job.id, demand(job, there), now - at) for at, _, job in waiting],
            cluster=there,
            held=total(demand(job, there) for job in active),
        )
        pending += [(runs_s, job) for _, runs_s, job in waiting if job.id in plan.start]
        waiting = [row for row in waiting if row[2].id not in plan.start]

        # Ray places, and its autoscaler looks at what found no place.
        unplaced: list[tuple[float, Job]] = []
        for runs_s, job in pending:
            placed_now = cluster.place(_bundles(job, there), now)
            if placed_now is None:
                unplaced.append((runs_s, job))
            else:
                working.append((now + runs_s, job, placed_now))
        pending = unplaced
        cluster.scale([_bundles(job, there) for _, job in pending], now)

        held = total(demand(row[1], there) for row in (*pending, *working))
        nodes = Counter(node.group for node in cluster.nodes)
        moments.append(Moment(now, len(waiting), len(pending), len(working), held.cpus, nodes))
    return moments


@dataclass(frozen=True)
class ServeMoment:
    """What is so after a tick."""

    at_s: float
    per_s: float
    ongoing: float
    wanted: int
    """Replicas that Serve aims at."""
    replicas: int
    nodes: int


def ongoing(per_s: float) -> float:
    """Requests that are ongoing in a replica to which so many come a second; at most 64."""
    points = list(DRAWN_PER_S.items())
    if per_s <= points[0][1]:
        return per_s / points[0][1]
    for (few, slow), (many, fast) in itertools.pairwise(points):
        if per_s <= fast:
            return float(few * (many / few) ** ((per_s - slow) / (fast - slow)))
    return float(points[-1][0])


Policy = Callable[[AutoscalingContext], tuple[float, dict[str, Any]]]


def serving(
    ray: Object,
    config: ServeAutoscaling,
    policy: Policy,
    *,
    until_s: float,
    load: Load = LOAD,
) -> list[ServeMoment]:
    """The load's requests on the interactive deployment, a replica in each pod."""
    cluster = Cluster(ray)
    wanted, state, backlog = config.min_replicas, dict[str, Any](), 0.0
    replicas: list[tuple[Node, Bundle]] = []
    recent: deque[float] = deque(maxlen=int(config.look_back_period_s / TICK_S))
    moments = []
    for now in _ticks(until_s):
        # Requests come, and some wait.
        minute = int(now // 60)
        per_minute = load["requests_per_s"]
        per_s = per_minute[minute] if minute < len(per_minute) else 0.0
        running = len(replicas)
        most_per_s = running * max(DRAWN_PER_S.values())
        backlog += (per_s - most_per_s) * TICK_S
        backlog = min(max(backlog, 0.0), MAX_BACKLOG * running)
        each = ongoing(per_s / running) if running else 0.0
        recent.append(each * running + backlog)

        # Serve decides.
        requests = sum(recent) / len(recent)
        wanted, state = _serve_decides(config, policy, requests, running, wanted, state, now)

        # Replicas come and go, and pods with them.
        while len(replicas) > wanted:
            node, bundle = replicas.pop()
            node.give(bundle, now)
        while len(replicas) < wanted and (placed := cluster.place([{"CPU": 1.0}], now)):
            replicas += placed
        cluster.scale([[{"CPU": 1.0}]] * (wanted - len(replicas)), now)
        moments.append(
            ServeMoment(now, per_s, recent[-1], wanted, len(replicas), len(cluster.nodes))
        )
    return moments


def _serve_decides(
    config: ServeAutoscaling,
    policy: Policy,
    requests: float,
    running: int,
    wanted: int,
    state: dict[str, Any],
    now: float,
) -> tuple[int, dict[str, Any]]:
    """What Serve makes of a policy's word (autoscaling_policy._apply_default_params), with our
    clock."""
    context = AutoscalingContext(
        deployment_id=None,
        deployment_name="interactive",
        app_name="interactive",
        current_num_replicas=running,
        target_num_replicas=wanted,
        running_replicas=[],
        total_num_requests=requests,
        total_queued_requests=0,
        aggregated_metrics={},
        raw_metrics={},
        capacity_adjusted_min_replicas=config.min_replicas,
        capacity_adjusted_max_replicas=config.max_replicas,
        policy_state=state,
        last_scale_up_time=None,
        last_scale_down_time=None,
        current_time=now,
        config=config,
    )
    desired, _ = policy(context)
    scaled = serve_policy._apply_scaling_factors(desired, running, config)
    bounded = min(max(scaled, config.min_replicas), config.max_replicas)
    return serve_policy._apply_delay_logic(bounded, wanted, config, state, now)


def _ticks(until_s: float) -> Iterable[float]:
    return (i * TICK_S for i in range(int(until_s / TICK_S)))


def _job(number: int, row: dict[str, Any]) -> Job:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    return Job(
        id=f"job-{number}",
        kind=JobKind(row["kind"]),
        owner="o",
        state=JobState.QUEUED,
        spec={"workers": row["workers"]} if row["kind"] == "train" else {},
        priority=0,
        max_attempts=3,
        created_at=at,
        updated_at=at,
    )


def _bundles(job: Job, there: Resources) -> list[Bundle]:
    """What an attempt asks Ray for: a CPU for each rank."""
    return [{"CPU": 1.0}] * int(demand(job, there).cpus)
