"""The Kubernetes manifests as `kubectl kustomize` renders them, and the pods that come of them.

KubeRay makes pods of templates in its objects; here they get the labels that it gives them.
"""

from __future__ import annotations

import os
import re
import subprocess
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
MANIFESTS = ROOT / "deploy" / "kubernetes"
KUBECTL = Path(sysconfig.get_path("scripts")) / "kubectl"

Object = dict[str, Any]

BUILDS = ["base", "overlays/local", "overlays/gpu", "overlays/kueue"]
RAY_KINDS = {"RayCluster", "RayService"}
OWNERS = {"Deployment", "StatefulSet"}


@dataclass(frozen=True)
class Pod:
    """A template of pods: who makes them, their labels and their spec."""

    name: str
    labels: dict[str, str]
    spec: Object
    is_ray: bool

    @property
    def containers(self) -> list[Object]:
        return [*self.spec["containers"], *self.spec.get("initContainers", [])]

    @property
    def ports(self) -> set[int]:
        return {p["containerPort"] for c in self.containers for p in c.get("ports", [])}


@cache
def _rendered(folder: Path) -> str:
    command = [KUBECTL, "kustomize", folder]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not done.stderr  # deprecated fields, mostly
    return done.stdout


def rendered(build: str | Path) -> list[Object]:
    """All objects of a build: a folder below deploy/kubernetes, or a path."""
    return list(yaml.load_all(_rendered(MANIFESTS / build), Loader=yaml.CSafeLoader))


def composed(folder: Path, *components: str, literals: tuple[str, ...] = ()) -> list[Object]:
    """What an operator's own overlay, in `folder`, gives: the base with components and settings."""
    generator = {"name": "settings", "namespace": "elmyr", "behavior": "merge"}
    kustomization = {
        "resources": [os.path.relpath(MANIFESTS / "base", folder)],
        "components": [os.path.relpath(MANIFESTS / "components" / c, folder) for c in components],
        "configMapGenerator": [{**generator, "literals": list(literals)}] if literals else [],
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    return rendered(folder)


def files(folder: str) -> list[Object]:
    """The objects in the YAML files of a folder that is no build."""
    paths = sorted((MANIFESTS / folder).glob("*.yaml"))
    return [o for path in paths for o in yaml.safe_load_all(path.read_text())]


def of_kind(objects: list[Object], *kinds: str) -> list[Object]:
    return [o for o in objects if o["kind"] in kinds]


def named(objects: list[Object], kind: str, name: str) -> Object:
    (found,) = [o for o in of_kind(objects, kind) if o["metadata"]["name"] == name]
    return found


def cluster_spec(ray: Object) -> Object:
    """The RayCluster in a RayCluster or RayService."""
    spec: Object = ray["spec"]
    return spec["rayClusterConfig"] if ray["kind"] == "RayService" else spec


def pods(objects: list[Object]) -> list[Pod]:
    """Every template of pods in these objects."""
    return [pod for o in objects for pod in _pods(o)]


def _pods(o: Object) -> Iterator[Pod]:
    name = o["metadata"]["name"]
    if o["kind"] in OWNERS:
        template = o["spec"]["template"]
        yield Pod(name, template["metadata"]["labels"], template["spec"], is_ray=False)
    elif o["kind"] in RAY_KINDS:
        spec = cluster_spec(o)
        head = spec["headGroupSpec"]["template"]
        yield _ray_pod(f"{name}/head", head, "head")
        for group in spec["workerGroupSpecs"]:
            yield _ray_pod(f"{name}/{group['groupName']}", group["template"], "worker")


def _ray_pod(name: str, template: Object, node_type: str) -> Pod:
    labels = template["metadata"]["labels"] | {"ray.io/node-type": node_type}
    return Pod(name, labels, template["spec"], is_ray=True)


def selects(selector: Object, labels: dict[str, str]) -> bool:
    """Whether a label selector of Kubernetes selects these labels."""
    wanted = selector.get("matchLabels", {})
    return all(labels.get(key) == value for key, value in wanted.items()) and all(
        expression["operator"] == "In" and labels.get(expression["key"]) in expression["values"]
        for expression in selector.get("matchExpressions", [])
    )


def settings_of(objects: list[Object]) -> dict[str, str]:
    """The data of the ConfigMap of the settings."""
    (found,) = [
        o for o in of_kind(objects, "ConfigMap") if o["metadata"]["name"].startswith("settings-")
    ]
    data: dict[str, str] = found["data"]
    return data


UNITS = {"": 1.0, "m": 1e-3, "Mi": 2.0**20, "Gi": 2.0**30}


def quantity(text: str | int) -> float:
    """A quantity of Kubernetes in CPUs or bytes."""
    number, unit = re.fullmatch(r"([0-9.]+)(\w*)", str(text)).groups()
    return float(number) * UNITS[unit]
