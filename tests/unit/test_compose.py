"""Rules that every service of the compose file keeps, and what they name is there; by no engine."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from services.serving import keeper
from shared.settings import Settings
from tests.manifests import ROOT
from tests.unit.test_kubernetes_pods import OUTSIDE_SETTINGS, OWN_IMAGES, THIRD_PARTIES

COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OFFLINE = yaml.safe_load((ROOT / "docker-compose.offline.yml").read_text())
ONLY_HERE = {"prom/prometheus:v3.5.0", "grafana/grafana:12.4.0"}
"""On Kubernetes there is an operator for these."""
PROFILES = {
    "ray-worker-gpu": ["gpu"],
    "prometheus": ["observability"],
    "grafana": ["observability"],
}

every_service = pytest.mark.parametrize("name", SERVICES)


def settings_env() -> dict[str, str]:
    lines = (ROOT / "deploy/docker/settings.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


@every_service
def test_a_service_is_contained(name: str) -> None:
    service = SERVICES[name]
    assert service["restart"] == "unless-stopped"
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    user = int(service["user"].split(":")[0])
    assert user > 0
    if service["image"] in OWN_IMAGES:
        assert service["user"] == "10001:10001"
    assert not {"privileged", "network_mode", "pid", "ipc", "cap_add", "devices"} & service.keys()


@every_service
def test_a_service_writes_to_volumes_and_tmp_only(name: str) -> None:
    """Of a folder that is not in the image the second start of a container makes root's."""
    service = SERVICES[name]
    assert all(re.fullmatch(r"/tmp:size=\d+m", mount) for mount in service.get("tmpfs", []))
    for volume in service.get("volumes", []):
        source, _, rest = volume.rpartition(":") if volume.endswith(":ro") else (volume, "", "")
        named = source.partition(":")[0] in COMPOSE["volumes"] or volume == "/tmp"
        assert named or rest == "ro", volume


@every_service
def test_a_service_is_limited_and_checked(name: str) -> None:
    service = SERVICES[name]
    assert re.fullmatch(r"\d+[mg]", service["mem_limit"])
    assert 0 < service["cpus"] <= 2  # an engine refuses more than its machine has
    assert service["pids_limit"] > 0
    assert service["logging"]["options"].keys() == {"max-size", "max-file"}
    assert service["healthcheck"].keys() == {
        *("test", "interval", "timeout", "retries", "start_period")
    }


@every_service
def test_a_service_runs_an_image_of_ours_or_a_pinned_one(name: str) -> None:
    service = SERVICES[name]
    assert service["image"] in OWN_IMAGES.keys() | THIRD_PARTIES | ONLY_HERE
    if "build" in service:
        assert service["build"]["target"] == OWN_IMAGES[service["image"]]
        assert service["build"]["dockerfile"] == "deploy/docker/Dockerfile"


@every_service
def test_ports_are_open_on_loopback_only(name: str) -> None:
    for port in SERVICES[name].get("ports", []):
        assert re.fullmatch(r"127\.0\.0\.1:\$\{[A-Z_]+:-(\d+)\}:\1", port)


@every_service
def test_a_service_is_in_its_profile(name: str) -> None:
    assert SERVICES[name].get("profiles", []) == PROFILES.get(name, [])


@every_service
def test_its_secrets_are_files(name: str) -> None:
    service = SERVICES[name]
    assert set(service.get("secrets", [])) <= COMPOSE["secrets"].keys()
    for variable, value in service.get("environment", {}).items():
        secret = re.search("PASSWORD|TOKEN|SECRET|KEY|REDIS_URL", variable)
        assert not secret or str(value).startswith("/run/secrets/"), variable


def test_new_secrets_are_those_that_are_mounted(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    script = [sys.executable, str(ROOT / "deploy/docker/new_secrets.py"), str(folder)]
    subprocess.run(script, check=True, capture_output=True)
    made = {path.name for path in folder.iterdir()}
    assert made == COMPOSE["secrets"].keys() | {"api_key"}
    assert all(
        secret["file"] == f"${{SECRETS:-./secrets}}/{name}"
        for name, secret in COMPOSE["secrets"].items()
    )
    settings = {f"elmyr_{field}" for field in Settings.model_fields}
    assert {name for name in made if name.startswith("elmyr_")} <= settings
    assert folder.stat().st_mode & 0o077 == 0
    again = subprocess.run(script, capture_output=True)
    assert again.returncode == 1
    assert "secrets/" in (ROOT / ".gitignore").read_text().splitlines()


def test_every_variable_of_ours_is_a_setting() -> None:
    names = set(settings_env()).union(*(s.get("environment", {}) for s in SERVICES.values()))
    ours = {name for name in names if name.startswith("ELMYR_")} - OUTSIDE_SETTINGS
    assert ours <= {f"ELMYR_{field.upper()}" for field in Settings.model_fields}
    grace = SERVICES["ray-head"]["environment"]["RAY_JOB_STOP_WAIT_TIME_S"]
    assert str(grace) == settings_env()["ELMYR_STOP_GRACE_S"]


def test_addresses_are_services() -> None:
    hosts = re.findall(
        r"(?:http://|ENDPOINT=)([a-z0-9-]+):", (ROOT / "deploy/docker/settings.env").read_text()
    )
    scraped = (ROOT / "deploy/prometheus/prometheus.yml").read_text()
    hosts += re.findall(r'\["([a-z-]+)(?::\d+)?"\]', scraped)
    assert {"s3", "ray-head", "ray-worker", "api", "dispatcher"} <= set(hosts) <= SERVICES.keys()


def test_offline_every_image_is_built_but_grafanas() -> None:
    built = OFFLINE["services"].keys()
    assert built == SERVICES.keys() - {"grafana", "ray-worker-gpu"}
    for name, service in OFFLINE["services"].items():
        if SERVICES[name]["image"] not in OWN_IMAGES:
            assert service["image"] == f"elmyr/{name}:offline"
        assert service["build"]["network"] == "host"


def test_the_image_carries_the_environment_of_the_embedded_ray() -> None:
    embedded = (ROOT / "services/local/ray_head.py").read_text()
    dockerfile = (ROOT / "deploy/docker/Dockerfile").read_text()
    carried = dict(re.findall(r"(RAY_\w+)=(\S+)", dockerfile))
    assert carried
    for name, value in carried.items():
        assert f'"{name}"' in embedded
        assert value in embedded or name == "RAY_SERVE_HAPROXY_LOG_TARGET"


def test_the_keeper_deploys_what_the_manifests_deploy() -> None:
    (service,) = [
        o
        for o in yaml.safe_load_all((ROOT / "deploy/kubernetes/base/serving.yaml").read_text())
        if o["kind"] == "RayService"
    ]
    manifest = yaml.safe_load(service["spec"]["serveConfigV2"])
    for application in manifest["applications"]:
        application.pop("deployments")  # there each replica holds a CPU of its pod
    wanted = keeper.wanted(Settings(serve_host="0.0.0.0"))
    assert wanted["applications"] == manifest["applications"]
    assert wanted["http_options"] == manifest["http_options"]
