"""One-picture requests a second and p99, against LitServe with the same network.

    python -m tests.benchmarks.bench_serving [--seconds 10] [--rounds 3] [--peer-python PYTHON]

Both serve a 32 px generator of ten classes as PNG on loopback, one process that computes, one torch
thread. LitServe is measured without batches and with batches, and the better of the two counts at
each number of connections. The load comes from `wrk` (one thread). The servers take turns in each
round, so that a noisy machine hits all, and each is started for its turn and alone in it; a ratio
is the median of the rounds' ratios. Each line also has the processor time of a request, over all
processes of a server: other programs disturb it less. LitServe and pyzmq are installed by pip into
a temporary folder, without their dependencies, which are Elmyr's, too; with --peer-python that
interpreter must have `litserve` and Elmyr's `worker` extra.

Ends with 1 when a ratio is below its target.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from services.local.marks import marked
from services.local.ports import number, reserve
from services.local.probes import http_ok
from services.local.processes import Process
from shared.settings import inherited_environment
from tests.forgers import publish_bench_forger
from tests.serving_stack import serving_stack

PEER_PACKAGES = ("litserve==0.2.19", "pyzmq==27.3.0")
TARGETS = {1: 2.3, 8: 1.1, 64: 1.5}
"""Connections -> how many times LitServe's requests a second we must reach."""

WARM_UP_S = 2
POST = 'wrk.method = "POST"\nwrk.body = "{}"\nwrk.headers["Content-Type"] = "application/json"\n'
UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3}


@dataclass(frozen=True)
class Measure:
    """What wrk saw."""

    per_s: float
    p99_ms: float
    cpu_ms: float
    """Processor time per request, of all processes of the server."""

    def __str__(self) -> str:
        return f"{self.per_s:.0f}/s, p99 {self.p99_ms:.1f} ms, cpu {self.cpu_ms:.2f} ms"


@dataclass(frozen=True)
class Target:
    """A running server: where it is asked, how (a script for wrk), and what it consists of."""

    url: str
    script: Path | None
    processes: Callable[[], list[psutil.Process]]

    def cpu_s(self) -> dict[int, float]:
        spent = {}
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):  # one of Ray's idle workers
                times = process.cpu_times()
                spent[process.pid] = times.user + times.system
        return spent


def load(target: Target, connections: int, seconds: int) -> Measure:
    """Load a server with so many connections; every answer must be 200."""
    command = [
        "wrk",
        "-t1",
        f"-c{connections}",
        f"-d{seconds}s",
        "--timeout",
        "30s",
        "--latency",
        target.url,
    ]
    if target.script:
        command[1:1] = ["-s", str(target.script)]
    before = target.cpu_s()
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    cpu_s = sum(spent - before.get(pid, 0.0) for pid, spent in target.cpu_s().items())
    assert "Non-2xx" not in text, text
    assert "Socket errors" not in text, text
    requests = re.search(r"(\d+) requests in", text)
    p99 = re.search(r"99%\s+([\d.]+)(us|ms|s)", text)
    per_s = re.search(r"Requests/sec:\s+([\d.]+)", text)
    assert p99, text
    assert per_s, text
    assert requests, text
    return Measure(float(per_s[1]), float(p99[1]) * UNITS[p99[2]], cpu_s / int(requests[1]) * 1000)


@contextmanager
def litserve(python: str, packages: Path | None, max_batch: int, folder: Path) -> Iterator[Target]:
    """A running LitServe."""
    script = folder / "post.lua"
    script.write_text(POST)
    with reserve() as reserved:
        port = number(reserved)
    root = str(Path(__file__).parents[2])
    path = root if packages is None else f"{packages}:{root}"
    process = Process(
        "litserve",
        [python, "-m", "tests.benchmarks.peer_litserve", str(port), str(max_batch)],
        log=folder / f"litserve-{max_batch}.log",
        env=inherited_environment({"PYTHONPATH": path}),
    )
    try:
        process.wait_ready(lambda: http_ok(port, "/health"), timeout_s=120)
        leader = psutil.Process(process.pid)
        yield Target(
            f"http://127.0.0.1:{port}/predict",
            script,
            lambda: [leader, *leader.children(recursive=True)],
        )
    finally:
        # LitServe's workers do not end with it.
        workers = psutil.Process(process.pid).children(recursive=True)
        process.stop()
        for worker in workers:
            with suppress(psutil.NoSuchProcess):
                worker.kill()


@contextmanager
def elmyr(folder: Path) -> Iterator[Target]:
    """A running stack that serves."""
    with serving_stack(folder) as stack:
        publish_bench_forger(stack.registry, "forger")
        url = f"{stack.url}/v1/models/forger/image"
        yield Target(url, None, lambda: marked(stack.stack_id))


def measured(
    seconds: int, rounds: int, peer_python: str | None
) -> dict[int, dict[str, list[Measure]]]:
    """Each round's measure, by number of connections and server."""
    found: dict[int, dict[str, list[Measure]]] = {connections: {} for connections in TARGETS}
    with tempfile.TemporaryDirectory(prefix="bench-serving-") as name:
        folder = Path(name)
        packages = None if peer_python else folder / "peer"
        if packages:
            pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target"]
            subprocess.run([*pip, str(packages), *PEER_PACKAGES], check=True)
        python = peer_python or sys.executable
        servers = {
            "elmyr": elmyr,
            "litserve": lambda at: litserve(python, packages, 1, at),
            "litserve, batches": lambda at: litserve(python, packages, 64, at),
        }
        for number in range(rounds):
            for server, start in servers.items():
                at = folder / f"{server}-{number}"
                at.mkdir()
                with start(at) as target:
                    load(target, 8, WARM_UP_S)
                    for connections in TARGETS:
                        measure = load(target, connections, seconds)
                        found[connections].setdefault(server, []).append(measure)
                        time.sleep(0.5)  # let queues and sockets run dry
    return found


def _median(measures: list[Measure]) -> Measure:
    return Measure(
        statistics.median(measure.per_s for measure in measures),
        statistics.median(measure.p99_ms for measure in measures),
        statistics.median(measure.cpu_ms for measure in measures),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peer-python")
    options = parser.parse_args()
    if not shutil.which("wrk"):
        sys.exit("wrk is not on the PATH: install it (Debian: apt-get install wrk)")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the servers are ended
    missed = False
    results = measured(options.seconds, options.rounds, options.peer_python)
    for connections, by_server in results.items():
        ours, *peers = by_server.values()
        best = [max(round_, key=lambda peer: peer.per_s) for round_ in zip(*peers, strict=True)]
        pairs = list(zip(ours, best, strict=True))
        ratio = statistics.median(own.per_s / peer.per_s for own, peer in pairs)
        missed |= ratio < TARGETS[connections]
        line: dict[str, float | str] = {
            "connections": connections,
            "ratio": round(ratio, 2),
            "target": TARGETS[connections],
            "p99_ratio": round(
                statistics.median(own.p99_ms / peer.p99_ms for own, peer in pairs), 2
            ),
            "cpu_ratio": round(
                statistics.median(own.cpu_ms / peer.cpu_ms for own, peer in pairs), 2
            ),
        }
        line |= {server: str(_median(measures)) for server, measures in by_server.items()}
        sys.stdout.write(json.dumps(line) + "\n")
    sys.exit(int(missed))


if __name__ == "__main__":
    main()
