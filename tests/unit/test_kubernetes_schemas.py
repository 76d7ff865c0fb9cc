"""The manifests are what Kubernetes and KubeRay accept, as far as that can be told without them."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from ray.serve.schema import ServeDeploySchema

from services.serving.app import app, bulk
from tests.manifests import (
    BUILDS,
    MANIFESTS,
    RAY_KINDS,
    ROOT,
    Object,
    composed,
    files,
    named,
    of_kind,
    pods,
    rendered,
)

CRDS = ROOT.parent / "shared" / "crds"
KUBERNETES = "1.37"
FOREIGN = {"kueue.x-k8s.io", "monitoring.coreos.com", "external-secrets.io"}
"""API groups whose schemas are not at hand: nothing checks their objects but kubectl's parser."""
MAX_NAMES = {"RayCluster": 53, "RayService": 47}


def group(o: Object) -> str:
    return str(o["apiVersion"].rpartition("/")[0])


def core(objects: list[Object]) -> list[Object]:
    return [o for o in objects if group(o) not in FOREIGN | {"ray.io"}]


def assert_valid(o: Object) -> None:
    _validate(json.dumps(o, sort_keys=True))


@cache
def _validate(o: str) -> None:
    """Once each: most objects of an overlay are those of the base, and each takes 40 ms."""
    kubernetes_validate.validate(json.loads(o), KUBERNETES, strict=True)


@pytest.mark.parametrize("build", BUILDS)
def test_core_objects_and_all_pods_are_valid(build: str) -> None:
    objects = rendered(build)
    as_pods: list[Object] = [
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"labels": p.labels}, "spec": p.spec}
        for p in pods(objects)
    ]
    assert as_pods
    for o in [*core(objects), *as_pods]:
        assert_valid(o)


@pytest.mark.parametrize(
    "components", [["monitoring"], ["external-stores"], ["monitoring", "external-stores"]]
)
def test_components_build_into_an_overlay_of_ones_own(
    tmp_path: Path, components: list[str]
) -> None:
    objects = composed(tmp_path, *components, literals=("ELMYR_S3_ENDPOINT=s3.example.org",))
    for o in core(objects):
        assert_valid(o)


def test_examples_are_valid() -> None:
    examples = files("examples")
    assert {o["kind"] for o in examples} == {"ExternalSecret", "Ingress"}
    for o in core(examples):
        assert_valid(o)


@pytest.mark.parametrize("build", BUILDS)
def test_kuberays_objects_fit_its_schemas(build: str) -> None:
    if not CRDS.is_dir():
        pytest.skip(f"NOT CHECKED: KubeRay's schemas are not in {CRDS}")
    for o in of_kind(rendered(build), *RAY_KINDS):
        jsonschema.Draft202012Validator(_schema(o["kind"])).validate(o)


@cache
def _schema(kind: str) -> Any:
    text = (CRDS / f"ray.io_{kind.lower()}s.yaml").read_text()
    crd = yaml.load(text, Loader=yaml.CSafeLoader)  # a megabyte: the other takes 8 s
    (version,) = [v for v in crd["spec"]["versions"] if v["name"] == "v1"]
    return _strict(version["schema"]["openAPIV3Schema"], top=True)


def _strict(schema: Any, *, top: bool = False) -> Any:
    """The schema, with unknown fields refused: the API server would drop them without a word."""
    if isinstance(schema, list):
        return [_strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    properties = schema.get("properties")
    strict = {key: _strict(value) for key, value in schema.items() if key != "properties"}
    if properties and not schema.get("x-kubernetes-preserve-unknown-fields"):
        metadata = {"metadata": {"type": "object"}} if top else {}
        strict["properties"] = {n: _strict(p) for n, p in properties.items()} | metadata
        strict.setdefault("additionalProperties", False)
    return strict


@pytest.mark.parametrize("build", BUILDS)
def test_names_are_short_enough_for_what_kuberay_makes_of_them(build: str) -> None:
    for o in of_kind(rendered(build), *RAY_KINDS):
        assert len(o["metadata"]["name"]) <= MAX_NAMES[o["kind"]]


def test_serve_reads_its_configuration_and_finds_the_applications() -> None:
    service = named(rendered("base"), "RayService", "serving")
    config = ServeDeploySchema.model_validate(yaml.safe_load(service["spec"]["serveConfigV2"]))
    # As services/serving/__main__.py deploys them elsewhere.
    assert {a.name: (a.import_path, a.route_prefix) for a in config.applications} == {
        "interactive": ("services.serving.app:app", "/"),
        "bulk": ("services.serving.app:bulk", "/bulk"),
    }
    built = {"interactive": app, "bulk": bulk}
    for application in config.applications:
        (deployment,) = application.deployments
        assert built[application.name]._bound_deployment.name == deployment.name
        # Its only change: a replica is a CPU, so that one too many is a pod more.
        assert set(deployment.model_dump(exclude_unset=True)) == {"name", "ray_actor_options"}


def test_the_new_secrets_are_those_that_the_example_of_external_ones_names() -> None:
    script = [sys.executable, MANIFESTS / "new_secrets.py"]
    done = subprocess.run(script, capture_output=True, text=True, check=True)
    made = json.loads(done.stdout)["items"]
    for o in made:
        assert_valid(o)
    external = of_kind(files("examples"), "ExternalSecret")
    assert {o["metadata"]["name"]: set(o["data"]) for o in made} == {
        o["spec"]["target"]["name"]: {entry["secretKey"] for entry in o["spec"]["data"]}
        for o in external
    }
    key = done.stderr.split()[-1]
    assert key.startswith("elm_")
    assert key not in done.stdout


def test_the_alert_rules_become_one_object(tmp_path: Path) -> None:
    rules = {"groups": [{"name": "queue", "rules": [{"alert": "Down", "expr": "up == 0"}]}]}
    (tmp_path / "rules.yml").write_text("# a comment\n" + yaml.safe_dump(rules))
    script = [MANIFESTS / "prometheus-rule.sh", tmp_path / "rules.yml"]
    done = subprocess.run(script, capture_output=True, text=True, check=True)
    o = yaml.safe_load(done.stdout)
    assert (o["kind"], o["spec"]) == ("PrometheusRule", rules)
