"""A job's metrics and grids as TensorBoard's and MLflow's own readers see them."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from shared.ids import new_job_id
from shared.schemas.events import EventType
from shared.schemas.jobs import Job, JobKind, JobSubmission, Outcome
from shared.settings import Settings, inherited_environment
from shared.storage import keys
from tests.live import Live, live_api

REPORTS = [(1.0, 0.5), (2.0, None), (3.0, 0.25)]


@pytest.fixture
def live(settings: Settings) -> Iterator[Live]:
    with live_api(settings) as live:
        yield live


@pytest.fixture
def job(live: Live) -> Job:
    """A training that has reported three times, drawn two grids, and ended."""
    job_id = new_job_id()
    spec = {"preset": "lecture", "config": {"optimizer_g": {"lr": 0.002}}, "seed": 7}
    submission = JobSubmission(kind=JobKind.TRAIN, spec=spec, name="first")
    live.queue.submit(job_id, submission, owner="tester")
    job = live.start(job_id)
    for kimg, loss in REPORTS:
        live.report(
            job, EventType.METRIC, kimg=kimg, of=3, step=1, eta_s=1, img_per_s=100, loss_g=loss
        )
    for kimg in (1.0, 3.0):
        buffer = io.BytesIO()
        Image.new("RGB", (12, 8), (int(kimg), 0, 0)).save(buffer, "WEBP", lossless=True)
        key = keys.sample_grid(job_id, job.token, kimg)
        live.store.put(key, buffer.getvalue(), content_type="image/webp")
        live.report(job, EventType.SAMPLE, kimg=kimg, key=key)
    live.end(job, Outcome.SUCCEEDED, model="tailor", version=1)
    return live.queue.get(job_id)


def export(live: Live, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """`elmyr jobs ...` as a process of its own."""
    root = {"PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.run(
        [sys.executable, "-m", "services.cli.main", "jobs", *words],
        env=inherited_environment(live.environment | root | environment),
        capture_output=True,
        text=True,
    )


def test_tensorboard_reads_the_scalars_and_the_grids(live: Live, job: Job, tmp_path: Path) -> None:
    for _ in range(2):  # the second replaces the first
        done = export(live, "tensorboard", job.id, str(tmp_path))
        assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(tmp_path / job.id)
    assert f"5 scalars and 2 grids of job {job.id}" in done.stderr
    seen = EventAccumulator(str(tmp_path / job.id), {"images": 0, "scalars": 0}).Reload()
    assert seen.Tags()["scalars"] == ["img_per_s", "loss_g"]
    assert [(s.step, s.value) for s in seen.Scalars("loss_g")] == [(1000, 0.5), (3000, 0.25)]
    (first, last) = seen.Images("grid")
    assert (first.step, last.step) == (1000, 3000)
    with Image.open(io.BytesIO(last.encoded_image_string)) as picture:
        assert (picture.size, picture.getpixel((0, 0))) == ((12, 8), (3, 0, 0))


def test_tensorboard_needs_neither_torch_nor_tensorflow(
    live: Live, job: Job, tmp_path: Path
) -> None:
    code = f"""
import sys
from services.cli import main
sys.argv = ["elmyr", "jobs", "tensorboard", {job.id!r}, {str(tmp_path)!r}]
try:
    main.main()
except SystemExit as end:
    assert not end.code
print([name for name in ("torch", "tensorflow", "ray") if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=inherited_environment(live.environment),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_mlflow_has_the_spec_the_metrics_and_the_grids(
    live: Live, job: Job, tmp_path: Path
) -> None:
    mlflow = pytest.importorskip("mlflow", reason="NOT TESTED: mlflow is not installed")
    environment = {
        "MLFLOW_TRACKING_URI": f"file://{tmp_path}/runs",
        "MLFLOW_ALLOW_FILE_STORE": "true",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    done = export(live, "mlflow", job.id, "--experiment", "forgers", **environment)
    assert done.returncode == 0, done.stderr
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        tracking = mlflow.MlflowClient()
        run = tracking.get_run(done.stdout.strip())
        losses = tracking.get_metric_history(run.info.run_id, "loss_g")
        files = [file.path for file in tracking.list_artifacts(run.info.run_id, "grids")]
    assert (run.info.run_name, run.info.status) == ("first", "FINISHED")
    assert run.data.tags["elmyr.job_id"] == job.id
    assert run.data.params == {"preset": "lecture", "config.optimizer_g.lr": "0.002", "seed": "7"}
    assert [(m.step, m.value) for m in losses] == [(1000, 0.5), (3000, 0.25)]
    assert [Path(file).name for file in files] == ["000001.000.webp", "000003.000.webp"]


@pytest.mark.parametrize("tool", ["mlflow", "tensorboard"])
def test_without_the_tool_it_says_what_to_install(
    live: Live, job: Job, tmp_path: Path, tool: str
) -> None:
    # A package of that name that cannot be imported stands before the real one.
    (tmp_path / f"{tool}.py").write_text(f"raise ModuleNotFoundError('no', name={tool!r})\n")
    path = f"{tmp_path}:{Path(__file__).parents[2]}"
    words = [job.id] + ([str(tmp_path)] if tool == "tensorboard" else [])
    done = export(live, tool, *words, PYTHONPATH=path)
    assert done.returncode == 2
    assert f"{tool} is not installed: pip install 'elmyr[{tool}]'" in done.stderr
