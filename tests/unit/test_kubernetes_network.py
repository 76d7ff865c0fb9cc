"""Who may speak to whom, by the network policies: the whole table, nothing beside it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.manifests import BUILDS, Object, Pod, composed, of_kind, pods, rendered, selects

DOORS = {"elmyr/ingress", "elmyr/monitoring", "elmyr/ray-operator"}
"""Labels of the namespaces of others."""

HEADS = {"training/head", "serving/head"}

ALLOWED = {
    ("api", "queue-redis", 6379),
    ("api", "s3", 8333),
    ("dispatcher", "queue-redis", 6379),
    ("dispatcher", "s3", 8333),
    ("dispatcher", "training", 8265),
    ("dispatcher", "training", 52365),
    ("dispatcher", "serving", 8000),
    ("training", "queue-redis", 6379),
    ("training", "s3", 8333),
    *(("training", "training", port) for port in (6379, 8265, 9109, 52365)),
    ("serving", "s3", 8333),
    ("serving", "gcs-redis", 6379),
    *(("serving", "serving", port) for port in (6379, 8000, 8265, 9109, 52365)),
    ("elmyr/ingress", "api", 8080),
    ("elmyr/ingress", "serving", 8000),
    ("elmyr/monitoring", "api", 8080),
    ("elmyr/monitoring", "dispatcher", 9108),
    ("elmyr/monitoring", "training", 9109),
    ("elmyr/monitoring", "serving", 9109),
    ("elmyr/ray-operator", "training", 8265),
    ("elmyr/ray-operator", "serving", 8265),
    ("elmyr/ray-operator", "serving", 8000),
}

every_build = pytest.mark.parametrize("build", BUILDS)


def component(pod: Pod) -> str:
    return pod.labels["app.kubernetes.io/component"]


def policies(objects: list[Object], pod: Pod, direction: str) -> list[Object]:
    """The specs of the policies that hold for a pod in a direction."""
    specs = [policy["spec"] for policy in of_kind(objects, "NetworkPolicy")]
    return [
        s for s in specs if direction in s["policyTypes"] and selects(s["podSelector"], pod.labels)
    ]


def opens(rule: Object, key: str, port: int, *, pod: Pod | None, door: str | None) -> bool:
    """Whether a rule of `from` (`to`) lets this pod or namespace in (out) on a port."""
    ports = rule.get("ports")
    if ports is not None and port not in {entry["port"] for entry in ports}:
        return False
    return key not in rule or any(_is_peer(peer, pod, door) for peer in rule[key])


def _is_peer(peer: Object, pod: Pod | None, door: str | None) -> bool:
    if "namespaceSelector" in peer:
        return door is not None and selects(peer["namespaceSelector"], {door: "true"})
    return pod is not None and selects(peer["podSelector"], pod.labels)


def enters(objects: list[Object], pod: Pod, port: int, *, sender: Pod | str) -> bool:
    who = (
        {"pod": None, "door": sender} if isinstance(sender, str) else {"pod": sender, "door": None}
    )
    rules = [r for p in policies(objects, pod, "Ingress") for r in p.get("ingress", [])]
    return any(opens(rule, "from", port, **who) for rule in rules)


def leaves(objects: list[Object], pod: Pod, port: int, *, receiver: Pod) -> bool:
    rules = [r for p in policies(objects, pod, "Egress") for r in p.get("egress", [])]
    return any(opens(rule, "to", port, pod=receiver, door=None) for rule in rules)


def flows(objects: list[Object]) -> set[tuple[str, str, int]]:
    """Every (from, to, port) that is open, on ports that somebody listens on."""
    templates = pods(objects)
    inside = {
        (component(a), component(b), port)
        for a in templates
        for b in templates
        for port in b.ports
        if leaves(objects, a, port, receiver=b) and enters(objects, b, port, sender=a)
    }
    outside = {
        (door, component(pod), port)
        for door in DOORS
        for pod in templates
        for port in pod.ports
        if enters(objects, pod, port, sender=door)
    }
    return inside | outside


@every_build
def test_exactly_what_is_meant_is_open(build: str) -> None:
    assert flows(rendered(build)) == ALLOWED


def test_stores_outside_leave_the_rest_as_it_is(tmp_path: Path) -> None:
    gone = {"queue-redis", "s3"}
    assert flows(composed(tmp_path, "external-stores")) == {
        flow for flow in ALLOWED if flow[1] not in gone
    }


@every_build
def test_every_port_of_every_container_is_in_a_policy(build: str) -> None:
    objects = rendered(build)
    for pod in pods(objects):
        named = {
            entry["port"]
            for policy in policies(objects, pod, "Ingress")
            for rule in policy.get("ingress", [])
            for entry in rule.get("ports", [])
        }
        whole = {6379} if pod.name in HEADS else set()  # Ray's own: between its pods all are open
        whole |= {52365} if component(pod) == "serving" else set()
        assert pod.ports - whole <= named, pod.name


@every_build
def test_what_no_policy_names_is_denied_both_ways(build: str) -> None:
    objects = rendered(build)
    for pod in pods(objects):
        assert policies(objects, pod, "Ingress")
        assert policies(objects, pod, "Egress")
    stranger = Pod("stranger", {"app": "stranger"}, {"containers": []}, is_ray=False)
    assert not any(
        enters(objects, pod, port, sender=stranger) for pod in pods(objects) for port in pod.ports
    )


@every_build
def test_all_may_ask_for_names_and_only_heads_for_the_kubernetes_api(build: str) -> None:
    objects = rendered(build)
    for pod in pods(objects):
        rules = [r for p in policies(objects, pod, "Egress") for r in p.get("egress", [])]
        assert any({e["port"] for e in rule.get("ports", [])} == {53} for rule in rules)
        everywhere = {e["port"] for rule in rules if "to" not in rule for e in rule["ports"]}
        assert everywhere == ({443, 6443} if pod.name in HEADS else set()), pod.name
