"""Rules that every pod of the manifests keeps, and what they name is there."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from functools import cache
from typing import Any

import pytest

from shared.settings import Settings
from tests.manifests import (
    BUILDS,
    MANIFESTS,
    RAY_KINDS,
    ROOT,
    Object,
    cluster_spec,
    of_kind,
    pods,
    rendered,
    selects,
    settings_of,
)

VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
OWN_IMAGES = {
    f"elmyr/{target}:{VERSION}{build}": target
    for target in ("api", "ray")
    for build in ("", "-cuda")
}
THIRD_PARTIES = {
    "redis:8.2.3",  # of 8.2 the first without CVE-2025-49844 is 8.2.2
    "chrislusf/seaweedfs:4.48",  # the release of the wheel that the tests run
}
DOCKERFILE = ROOT / "deploy" / "docker" / "Dockerfile"
OUTSIDE_SETTINGS = {"ELMYR_SECRETS_DIR"}
"""Read before there are settings."""

every_build = pytest.mark.parametrize("build", BUILDS)


def containers(build: str) -> list[tuple[str, Object]]:
    """Every container, the autoscalers' included, by a name to be found by."""
    objects = rendered(build)
    found = [(f"{pod.name}/{c['name']}", c) for pod in pods(objects) for c in pod.containers]
    for o in of_kind(objects, *RAY_KINDS):
        name = f"{o['metadata']['name']}/autoscaler"
        found.append((name, cluster_spec(o)["autoscalerOptions"]))
    return found


@every_build
def test_every_container_has_requests_and_limits(build: str) -> None:
    for name, container in containers(build):
        for bound in ("requests", "limits"):
            assert {"cpu", "memory"} <= container["resources"][bound].keys(), (name, bound)


@every_build
def test_every_container_is_restricted_and_its_root_is_read_only(build: str) -> None:
    for name, container in containers(build):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }, name
    for pod in pods(rendered(build)):
        context = pod.spec["securityContext"]
        assert context["runAsNonRoot"], pod.name
        assert (context["runAsUser"], context["runAsGroup"], context["fsGroup"]) == (10001,) * 3
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.spec.keys()
        kinds = {kind for volume in pod.spec["volumes"] for kind in volume} - {"name"}
        assert kinds <= {"secret", "configMap", "emptyDir", "projected"}, pod.name


@every_build
def test_the_namespace_asks_for_that(build: str) -> None:
    (namespace,) = of_kind(rendered(build), "Namespace")
    labels = namespace["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


@every_build
def test_every_image_is_ours_or_a_pinned_one(build: str) -> None:
    images = {c["image"] for pod in pods(rendered(build)) for c in pod.containers}
    assert images <= OWN_IMAGES.keys() | THIRD_PARTIES


def test_our_images_are_targets_of_the_dockerfile() -> None:
    if not DOCKERFILE.exists():
        pytest.skip(f"NOT CHECKED: there is no {DOCKERFILE}")
    stages = re.findall(r"^FROM\s.*\sAS\s+(\S+)", DOCKERFILE.read_text(), re.M | re.I)
    assert set(OWN_IMAGES.values()) <= set(stages)


@every_build
def test_every_container_is_probed(build: str) -> None:
    """All of them run for good. Ray's have no startupProbe: KubeRay's clean-up of Redis runs in a
    copy of the head's container, of which it takes the other two probes away."""
    for pod in pods(rendered(build)):
        wanted = {"livenessProbe", "readinessProbe"} | (set() if pod.is_ray else {"startupProbe"})
        for container in pod.containers:
            assert {key for key in container if key.endswith("Probe")} == wanted, pod.name


@every_build
def test_a_pod_gets_longer_to_end_than_a_checkpoint_takes(build: str) -> None:
    stop_grace_s = float(settings_of(rendered(build))["ELMYR_STOP_GRACE_S"])
    for pod in pods(rendered(build)):
        least = 2 * stop_grace_s if pod.is_ray else 0  # workers.drain waits so long
        assert pod.spec["terminationGracePeriodSeconds"] > least, pod.name


@every_build
def test_where_attempts_or_replicas_run_a_pod_is_drained_before_it_ends(build: str) -> None:
    for pod in pods(rendered(build)):
        if pod.is_ray and pod.name != "serving/head":
            (container,) = pod.containers
            hook = container["lifecycle"]["preStop"]["exec"]["command"]
            assert hook == ["python", "-m", "workers.drain"]
            names = {variable["name"] for variable in container["env"]}
            assert "ELMYR_DRAIN_FILE" in names


@every_build
def test_no_service_gets_into_the_environment(build: str) -> None:
    """A Service named elmyr-api would set ELMYR_API_PORT=tcp://..."""
    assert all(pod.spec["enableServiceLinks"] is False for pod in pods(rendered(build)))


@every_build
def test_tokens_of_kubernetes_are_only_where_they_are_used(build: str) -> None:
    """Only the autoscalers speak to Kubernetes; KubeRay gives the heads an account for that."""
    for pod in pods(rendered(build)):
        if pod.labels.get("ray.io/node-type") == "head":
            assert "serviceAccountName" not in pod.spec
        else:
            assert pod.spec["serviceAccountName"] == "elmyr"
            assert pod.spec["automountServiceAccountToken"] is False


@every_build
def test_every_variable_of_ours_is_a_setting(build: str) -> None:
    objects = rendered(build)
    names = set(settings_of(objects))
    for pod in pods(objects):
        names |= {v["name"] for c in pod.containers for v in c.get("env", [])}
    ours = {name for name in names if name.startswith("ELMYR_")} - OUTSIDE_SETTINGS
    assert ours <= {f"ELMYR_{field.upper()}" for field in Settings.model_fields}
    values = {name.removeprefix("ELMYR_").lower(): v for name, v in settings_of(objects).items()}
    Settings.model_validate(values)


@every_build
def test_secrets_become_files_that_the_settings_read(build: str) -> None:
    for pod in pods(rendered(build)):
        for container in pod.containers:
            if container["image"] in THIRD_PARTIES:
                continue
            values = {v["name"]: v.get("value") for v in container["env"]}
            paths = {m["name"]: m["mountPath"] for m in container["volumeMounts"]}
            assert values["ELMYR_SECRETS_DIR"] == paths["secrets"]
            (volume,) = [v for v in pod.spec["volumes"] if v["name"] == "secrets"]
            files = {item["path"] for _, item in secret_items(volume)}
            assert files <= {f"elmyr_{field}" for field in Settings.model_fields}


def secret_items(volume: Object) -> list[tuple[str, Object]]:
    """(name of the secret, item) of a volume of secrets."""
    if "secret" in volume:
        return [(volume["secret"]["secretName"], item) for item in volume["secret"]["items"]]
    sources = volume.get("projected", {}).get("sources", [])
    return [(s["secret"]["name"], item) for s in sources for item in s["secret"]["items"]]


@cache
def new_secrets() -> dict[str, set[str]]:
    """The keys of each secret that new_secrets.py makes."""
    script = [sys.executable, MANIFESTS / "new_secrets.py"]
    made = json.loads(subprocess.run(script, capture_output=True, check=True).stdout)
    return {o["metadata"]["name"]: set(o["data"]) for o in made["items"]}


def found(tree: Any, key: str) -> list[Any]:
    """Every value under this key, however deep."""
    if isinstance(tree, list):
        return [value for part in tree for value in found(part, key)]
    if not isinstance(tree, dict):
        return []
    own = [tree[key]] if key in tree else []
    return own + [value for part in tree.values() for value in found(part, key)]


@every_build
def test_everything_that_is_named_is_there(build: str) -> None:
    objects = rendered(build)
    there = {(o["kind"], o["metadata"]["name"]) for o in objects}
    for pod in pods(objects):
        for volume in pod.spec["volumes"]:
            for name, item in secret_items(volume):
                assert item["key"] in new_secrets()[name]
            if "configMap" in volume:
                assert ("ConfigMap", volume["configMap"]["name"]) in there
        volumes = {volume["name"] for volume in pod.spec["volumes"]} | {"data"}
        mounted = {m["name"] for c in pod.containers for m in c["volumeMounts"]}
        assert mounted <= volumes
    for reference in found(objects, "secretKeyRef"):
        assert reference["key"] in new_secrets()[reference["name"]]
    for name in found(objects, "secretName"):
        assert name in new_secrets()
    for reference in found(objects, "configMapRef"):
        assert ("ConfigMap", reference["name"]) in there
    for name in found(objects, "serviceAccountName"):
        assert ("ServiceAccount", name) in there
    for name in found(of_kind(objects, "StatefulSet"), "serviceName"):
        assert ("Service", name) in there
    for target in found(of_kind(objects, "HorizontalPodAutoscaler"), "scaleTargetRef"):
        assert (target["kind"], target["name"]) in there


@every_build
def test_services_and_budgets_select_pods(build: str) -> None:
    objects = rendered(build)
    templates = pods(objects)
    for service in of_kind(objects, "Service"):
        selector = {"matchLabels": service["spec"]["selector"]}
        (pod,) = [pod for pod in templates if selects(selector, pod.labels)]
        named = {p["name"] for c in pod.containers for p in c["ports"]}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= named
    for budget in of_kind(objects, "PodDisruptionBudget"):
        chosen = [p for p in templates if selects(budget["spec"]["selector"], p.labels)]
        assert len(chosen) == 1, budget["metadata"]["name"]
        assert isinstance(budget["spec"]["minAvailable"], int)  # a share needs a scale subresource


@every_build
def test_the_ray_of_the_image_is_the_ray_of_the_manifests(build: str) -> None:
    (pinned,) = re.findall(r"^ray==(\S+)$", (ROOT / "constraints.txt").read_text(), re.M)
    for o in of_kind(rendered(build), *RAY_KINDS):
        spec = cluster_spec(o)
        assert spec["rayVersion"] == pinned
        assert spec["authOptions"] == {"mode": "token", "secretName": "ray-token"}
        assert spec["autoscalerOptions"]["version"] == "v2"
        templates = [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
        for part in templates:
            assert (
                "restartPolicy" not in part["template"]["spec"]
            )  # v2 wants Never, KubeRay sets it
            assert part["rayStartParams"]["metrics-export-port"] == "9109"
        assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
