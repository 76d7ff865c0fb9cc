"""The page of metrics, the code, the rules, the dashboards and the runbooks tell the same."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from shared.metrics import Metric
from tests.promtool import DEPLOY, RULES, exported, named, needs_prometheus, promtool, series

DOCS = Path(__file__).parents[2] / "docs"
DASHBOARDS = sorted((DEPLOY / "grafana" / "dashboards").glob("*.json"))
UNITS = ("_total", "_seconds", "_bytes", "_ratio")
COUNTED = ("jobs", "leases", "collapses", "kimg", "images", "up", "per_second", "loaded")


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def alerts() -> dict[str, dict[str, Any]]:
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}


def expressions(dashboard: Path) -> Iterator[str]:
    content = json.loads(dashboard.read_text())
    for panel in content["panels"]:
        yield from (target["expr"] for target in panel["targets"])
    for variable in content["templating"]["list"]:
        if variable["type"] == "query":
            yield re.sub(r"label_values\((.*), \w+\)", r"\1", variable["query"]["query"])


def everywhere() -> Iterator[tuple[str, str]]:
    """Each expression and where it stands."""
    for rule in rules():
        yield rule.get("alert") or rule["record"], rule["expr"]
    for dashboard in DASHBOARDS:
        yield from ((dashboard.stem, expression) for expression in expressions(dashboard))


def test_the_page_lists_every_metric_as_the_code_has_it() -> None:
    row = re.compile(r"^\| `((?:ray_)?elmyr_\w+)` \| (\w+) \| (.*?) \| (.*?) \|$", re.MULTILINE)
    page = {
        name: (kind, tuple(re.findall(r"`(\w+)`", labels)), help_)
        for name, kind, labels, help_ in row.findall((DOCS / "metrics.md").read_text())
    }
    assert page == {name: (m.kind, m.labels, m.help) for name, m in exported().items()}


@pytest.mark.parametrize("metric", exported().values(), ids=lambda metric: metric.name)
def test_names_follow_the_convention(metric: Metric) -> None:
    assert metric.name.startswith("elmyr_")
    assert (
        metric.name.endswith(UNITS)
        or metric.name.rsplit("_", 1)[-1] in COUNTED
        or metric.name.endswith("_per_second")
    )
    assert metric.name.endswith("_total") == (metric.kind == "counter")
    assert bool(metric.buckets) == (metric.kind == "histogram")
    assert not {"model", "dataset", "prompt", "name", "job", "instance", "le"} & set(metric.labels)


def test_expressions_name_only_what_is_exported() -> None:
    records = {rule["record"] for rule in rules() if "record" in rule}
    there = set(series()) | records
    unknown = {(where, name) for where, text in everywhere() for name in named(text) - there}
    assert not unknown


def test_every_metric_is_looked_at() -> None:
    looked_at = {name for _, text in everywhere() for name in named(text)}
    of = series()
    assert {of[name].name for name in looked_at & set(of)} == {m.name for m in of.values()}


def test_expressions_group_only_by_labels_that_there_are() -> None:
    of, ours = series(), {"instance", "le"}
    for where, text in everywhere():
        known = {label for name in named(text) & set(of) for label in of[name].labels} | ours
        grouped = {
            label.strip()
            for group in re.findall(r"\bby \(([^)]*)\)", text)
            for label in group.split(",")
        }
        picked = set(re.findall(r"(\w+)(?:=~|!~|!=|=)\"", text))
        assert grouped | picked <= known, (where, text)


def test_every_alert_has_a_part_of_the_runbooks_and_the_other_way_round() -> None:
    titles = re.findall(r"^## (.*)$", (DOCS / "runbooks.md").read_text(), re.MULTILINE)
    anchors = {f"docs/runbooks.md#{title.lower().replace(' ', '-')}" for title in titles}
    urls = {alert["annotations"]["runbook_url"] for alert in alerts().values()}
    assert urls == anchors
    assert all(alert["labels"]["severity"] for alert in alerts().values())


def test_every_alert_is_tested_silent_and_loud() -> None:
    tests = yaml.safe_load(RULES.with_name("rules_test.yml").read_text())["tests"]
    cases = [case for test in tests for case in test["alert_rule_test"]]
    loud = {case["alertname"] for case in cases if case.get("exp_alerts")}
    silent = {case["alertname"] for case in cases if not case.get("exp_alerts")}
    assert loud == silent == set(alerts())


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda path: path.stem)
def test_a_dashboard_is_whole(dashboard: Path) -> None:
    content = json.loads(dashboard.read_text())
    assert content["uid"] == f"elmyr-{dashboard.stem}"
    assert content["schemaVersion"] >= 38
    ids = [panel["id"] for panel in content["panels"]]
    assert len(ids) == len(set(ids)) > 8
    for panel in content["panels"]:
        assert panel["title"]
        assert panel["datasource"]["uid"] == "${datasource}"
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24
    places = [tuple(panel["gridPos"][side] for side in "xy") for panel in content["panels"]]
    assert len(places) == len(set(places))


@needs_prometheus
@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda path: path.stem)
def test_promtool_parses_every_expression_of_a_dashboard(dashboard: Path, tmp_path: Path) -> None:
    texts = [
        text.replace("$__rate_interval", "5m").replace("$job_id", ".*")
        for text in expressions(dashboard)
    ]
    file = tmp_path / "rules.yml"
    records = [{"record": f"panel:{n}", "expr": text} for n, text in enumerate(texts)]
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": records}]}))
    assert f"{len(texts)} rules found" in promtool("check", "rules", file)


@needs_prometheus
def test_promtool_is_content_with_the_configuration_and_the_rules() -> None:
    assert "SUCCESS" in promtool("check", "config", DEPLOY / "prometheus" / "prometheus.yml")
    assert f"{len(rules())} rules found" in promtool("check", "rules", RULES)
    assert "SUCCESS" in promtool("test", "rules", RULES.with_name("rules_test.yml"))


def test_grafana_finds_prometheus_and_the_dashboards() -> None:
    provisioning = DEPLOY / "grafana" / "provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())[
        "datasources"
    ]
    assert (source["type"], source["url"]) == ("prometheus", "http://prometheus:9090")
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "elmyr.yml").read_text())[
        "providers"
    ]
    assert provider["type"] == "file"
