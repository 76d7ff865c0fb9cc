"""A real Prometheus with our configuration, on a running stack; and a collector of spans."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import httpx2
import yaml
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from services.local.identity import load_identity
from services.local.ports import LOOPBACK, number, reserve
from services.local.probes import http_ok
from services.local.processes import Process
from services.local.state import StackState
from shared.settings import inherited_environment
from tests.promtool import DEPLOY


class Prometheus:
    """What a running one answers."""

    def __init__(self, url: str) -> None:
        self._url = url

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The series of an instant query. Raises AssertionError for one that it refuses."""
        return list(self._data("query", query=expression)["result"])

    def groups(self) -> list[dict[str, Any]]:
        """The groups of rules and how their evaluation went."""
        return list(self._data("rules")["groups"])

    def targets(self) -> dict[str, str]:
        """The health of each scraped job."""
        active = self._data("targets")["activeTargets"]
        return {target["labels"]["job"]: target["health"] for target in active}

    def _data(self, path: str, **params: str) -> dict[str, Any]:
        answer = httpx2.get(f"{self._url}/api/v1/{path}", params=params, trust_env=False).json()
        assert answer["status"] == "success", answer
        return dict(answer["data"])


@contextmanager
def prometheus(stack: StackState, folder: Path) -> Iterator[Prometheus]:
    """Scrape the stack every second until the block ends, by deploy's configuration."""
    ports = load_identity(stack.data_dir).ports
    config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(DEPLOY / "prometheus" / "rules.yml")]
    where = {"api": "api", "dispatcher": "dispatcher", "ray": "ray_metrics"}
    for job in config["scrape_configs"]:
        job.pop("dns_sd_configs", None)
        port = ports[where[job["job_name"]]]
        job["static_configs"] = [{"targets": [f"{LOOPBACK}:{port}"]}]
    file = folder / "prometheus.yml"
    file.write_text(yaml.safe_dump(config))
    with reserve() as reserved:
        port = number(reserved)
    process = Process(
        "prometheus",
        [
            "prometheus",
            f"--config.file={file}",
            f"--storage.tsdb.path={folder / 'tsdb'}",
            f"--web.listen-address={LOOPBACK}:{port}",
        ],
        log=folder / "prometheus.log",
        env=inherited_environment({}),
    )
    try:
        process.wait_ready(lambda: http_ok(port, "/-/ready"), timeout_s=60)
        yield Prometheus(f"http://{LOOPBACK}:{port}")
    finally:
        process.stop()


class Span:
    """A span that the collector received."""

    def __init__(self, service: str, span: Any) -> None:
        self.service = service
        self.name: str = span.name
        self.trace_id: str = span.trace_id.hex()
        self.span_id: str = span.span_id.hex()
        self.parent_id: str = span.parent_span_id.hex()
        self.attributes = {
            item.key: getattr(item.value, item.value.WhichOneof("value"))
            for item in span.attributes
        }

    def __repr__(self) -> str:
        return json.dumps(vars(self), default=str)


class Collector:
    """Where spans come in."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.spans: list[Span] = []

    def receive(self, body: bytes) -> None:
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            (service,) = (
                item.value.string_value
                for item in resource.resource.attributes
                if item.key == "service.name"
            )
            for scope in resource.scope_spans:
                self.spans += [Span(service, span) for span in scope.spans]

    def trace(self, trace_id: str) -> dict[str, Span]:
        """The spans of one trace, by name."""
        return {span.name: span for span in list(self.spans) if span.trace_id == trace_id}


@contextmanager
def collecting() -> Iterator[Collector]:
    """An OTLP collector over HTTP on a free port of loopback, until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/traces"
            collector.receive(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Type", "application/x-protobuf")
            self.end_headers()
            self.wfile.write(ExportTraceServiceResponse().SerializeToString())

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer((LOOPBACK, 0), Handler)
    collector = Collector(f"http://{LOOPBACK}:{server.server_port}")
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield collector
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
