"""`elmyr` off a terminal, against the real API and real serving."""

from __future__ import annotations

import io
import json
import socket
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import httpx2
import pytest
from PIL import Image

from services.cli.main import main
from services.serving import replicas
from shared import clock
from shared.schemas.datasets import Refusal
from shared.schemas.events import EventType
from shared.schemas.jobs import JobKind, JobState, Outcome, Progress
from shared.schemas.scores import Evaluation, Score
from shared.settings import Settings, inherited_environment
from shared.storage import datasets, keys
from shared.storage.registry import Registry
from tests.forgers import publish_forger
from tests.live import KEY, Live, listening, live_api

TRAIN = ("train", "--dataset", "garments", "--model", "tailor")


class Elmyr:
    """Runs commands against one stack, in `folder`.

    A call runs in this process, which spares each its half second of imports.
    """

    def __init__(
        self,
        environment: dict[str, str],
        folder: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        self.folder = folder
        self._monkeypatch = monkeypatch
        monkeypatch.chdir(folder)
        for name in ("URL", "SERVE_URL", "API_KEY", "DATA_DIR"):
            monkeypatch.delenv(f"ELMYR_{name}", raising=False)
        for name, value in {"COLUMNS": "100", **environment}.items():
            self.set(name, value)

    def set(self, name: str, value: str) -> None:
        """Set a variable of the environment."""
        self._monkeypatch.setenv(name, value)

    def start(self, *words: str) -> subprocess.Popen[str]:
        """A command as a process of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "services.cli.main", *words],
            env=inherited_environment({"PYTHONPATH": str(Path(__file__).parents[2])}),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __call__(self, *words: str, code: int = 0) -> tuple[str, str]:
        """What a command prints on stdout and stderr; it must end with `code`."""
        self._monkeypatch.setattr(sys, "argv", ["elmyr", *words])
        out, err = io.StringIO(), io.StringIO()
        # Not capsys: the servers of this process would log into what it closes.
        with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as ended:
            main()
        assert (ended.value.code or 0) == code, err.getvalue()
        return out.getvalue(), err.getvalue()

    def lines(self, *words: str) -> list[str]:
        return self(*words)[0].splitlines()


@pytest.fixture
def live(settings: Settings) -> Iterator[Live]:
    with live_api(settings) as live:
        live.add_dataset("garments")
        yield live


@pytest.fixture
def elmyr(live: Live, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Elmyr:
    return Elmyr(live.environment, tmp_path, monkeypatch)


def test_a_training_that_is_detached(live: Live, elmyr: Elmyr) -> None:
    out, err = elmyr(
        *TRAIN, "--preset", "lecture", "--kimg", "5", "--workers", "2", "--seed", "3",
        "--set", "label_flip=0.1", "--set", "optimizer_g.lr=0.002", "--priority", "7",
        "--name", "first", "--label", "who=me",
    )  # fmt: skip
    job = live.queue.get(out.strip())
    assert f"train job {job.id} is queued: {live.url}/v1/jobs/{job.id}" in err
    assert (job.priority, job.name, job.labels) == (7, "first", {"who": "me"})
    wanted = {
        "preset": "lecture",
        "kimg": 5.0,
        "workers": 2,
        "seed": 3,
        "config": {"label_flip": 0.1, "optimizer_g": {"lr": 0.002}},
    }
    assert {name: job.spec[name] for name in wanted} == wanted


def test_a_dry_run_prints_the_configuration_and_submits_nothing(live: Live, elmyr: Elmyr) -> None:
    out, _ = elmyr(*TRAIN, "--set", "kimg=3", "--dry-run")
    assert json.loads(out)["config"]["kimg"] == 3
    assert live.queue.list() == ([], None)


def test_a_training_that_is_followed_to_its_end(live: Live, elmyr: Elmyr) -> None:
    process = elmyr.start(*TRAIN, "--follow")
    assert process.stdout is not None
    job = live.start(process.stdout.readline().strip())
    live.report(
        job,
        EventType.METRIC,
        kimg=50.0,
        of=100.0,
        img_per_s=740.2,
        loss_d=0.64,
        loss_g=1.23,
        eta_s=9,
    )
    live.end(job, Outcome.SUCCEEDED, model="tailor", version=1)
    out, err = process.communicate()
    assert (process.returncode, out) == (0, "")
    said = err.splitlines()
    assert "running, attempt 1" in said
    assert "kimg 50.0/100 | 740 img/s | D 0.64 G 1.23 | eta 9s" in said
    assert f"job {job.id} succeeded: published tailor@1" in said


def test_a_failed_job_exits_with_3_and_shows_why(live: Live, elmyr: Elmyr) -> None:
    job = live.start(elmyr.lines(*TRAIN)[0])
    live.report(job, EventType.LOG, line="about to \x1b[31mfail", stream="stdout")
    live.end(job, Outcome.FAILED, error="the loss is not finite")
    for command in ("watch", "wait"):
        _, err = elmyr("jobs", command, job.id, code=3)
        assert f"error: job {job.id} failed: the loss is not finite" in err
        assert "| about to \N{REPLACEMENT CHARACTER}[31mfail" in err
    assert elmyr.lines("jobs", "logs", job.id) == ["about to \N{REPLACEMENT CHARACTER}[31mfail"]


def test_lists_for_programs(live: Live, elmyr: Elmyr) -> None:
    first, second = (elmyr.lines(*TRAIN, "--name", name)[0] for name in ("one", "two\twords"))
    live.start(first)
    assert elmyr.lines("jobs", "list", "-o", "id") == [second, first]
    assert elmyr.lines("jobs", "list", "--state", "running", "-o", "id") == [first]
    assert elmyr.lines("jobs", "list", "-n", "1", "-o", "id") == [second]
    listed = json.loads(elmyr("jobs", "list", "-o", "json")[0])
    assert [job["id"] for job in listed] == [second, first]
    by_line = [json.loads(line) for line in elmyr.lines("jobs", "list", "-o", "jsonl")]
    assert by_line == listed
    rows = [line.split("\t") for line in elmyr.lines("jobs", "list")]
    assert [row[:3] for row in rows] == [[second, "train", "queued"], [first, "train", "running"]]
    assert [row[-1] for row in rows] == ["two words", "one"]
    assert rows[1][5].endswith("Z")
    shown = dict(line.split(": ", 1) for line in elmyr.lines("jobs", "get", first))
    assert (shown["state"].strip(), shown["attempts"].strip()) == ("running", "1 running")
    assert json.loads(elmyr("jobs", "get", first, "-o", "json")[0]) == live_json(live, first)


def live_json(live: Live, job_id: str) -> dict[str, object]:
    """The job's keys and values as the API shows them."""

    headers = {"Authorization": f"Bearer {KEY}"}
    answer: dict[str, object] = httpx2.get(f"{live.url}/v1/jobs/{job_id}", headers=headers).json()
    return answer


def test_the_verbs(live: Live, elmyr: Elmyr) -> None:
    job_id = elmyr.lines(*TRAIN)[0]
    assert elmyr("jobs", "pause", job_id) == (f"{job_id}\n", f"job {job_id} is paused\n")
    elmyr("jobs", "resume", job_id)
    assert live.queue.get(job_id).state is JobState.QUEUED
    job = live.start(job_id)
    assert "cancel asked" in elmyr("jobs", "cancel", job_id)[1]
    live.end(job, Outcome.CANCELED)
    elmyr("jobs", "wait", job_id, code=5)
    elmyr("jobs", "retry", job_id)
    _, err = elmyr("jobs", "wait", job_id, "--timeout", "0", code=124)
    assert "still queued" in err
    assert "error: " in elmyr("jobs", "resume", job_id, code=1)[1]


def test_errors_say_what_and_what_to_do(elmyr: Elmyr) -> None:
    for words, code, says in (
        (("jobs", "get", "job-of-nobody"), 6, "job-of-nobody"),
        (("train", "--dataset", "garment", "--model", "m"), 6, "there are: garments"),
        ((*TRAIN, "--preset", "lektion"), 2, "there are: lecture"),
        ((*TRAIN, "--set", "kimgs=3"), 2, "/spec/config/kimgs"),
        ((*TRAIN, "--set", "kimg"), 2, "KEY=VALUE"),
        (("jobs", "lst"), 2, "No such command"),
        (("sample", "tailor", "-o", "out.txt"), 2, "out.txt"),
        (("sample", "tailor", "--job", "-o", "out.png"), 2, "zip"),
        (("sample", "tailor", "-o", "missing/out.png"), 1, "ELMYR_SERVE_URL"),
        (("datasets", "push", "d", "missing"), 2, "missing"),
        (("datasets", "fetch", "mona-lisa"), 6, "fashion-mnist"),
    ):
        out, err = elmyr(*words, code=code)
        assert (out, says in err) == ("", True), err


def test_a_wrong_key_exits_with_4(elmyr: Elmyr) -> None:
    elmyr.set("ELMYR_API_KEY", "elm_wrong")
    assert "ELMYR_API_KEY" in elmyr("jobs", "list", code=4)[1]


def test_without_a_stack_it_says_how_to_start_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elmyr = Elmyr({"ELMYR_URL": ""}, tmp_path, monkeypatch)
    out, err = elmyr("jobs", "list", code=1)
    assert (out, "elmyr up" in err) == ("", True)
    assert "elmyr up" in elmyr("status", code=6)[1]
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
    stack = {"api_url": url, "serve_url": url, "api_key": "k"}
    (tmp_path / "stack.json").write_text(json.dumps(stack))
    assert "elmyr up" in elmyr("--data-dir", ".", "jobs", "list", code=1)[1]


def test_a_folder_is_pushed(live: Live, elmyr: Elmyr) -> None:
    (elmyr.folder / "images").mkdir()
    (elmyr.folder / "images" / "1.png").write_bytes(b"x")
    out, err = elmyr("datasets", "push", "coats", "images", "--size", "32", "--source", "mine")
    job = live.queue.get(out.strip())
    assert (job.spec["dataset"], job.spec["size"], job.spec["source"]) == ("coats", 32, "mine")
    assert f"elmyr jobs watch {job.id}" in err
    assert elmyr.lines("datasets", "list", "-o", "id") == ["garments"]
    assert elmyr.lines("datasets", "list")[0].split("\t")[:4] == [
        "garments",
        "100",
        "32 px grey",
        "",
    ]


def test_a_dataset_is_shown_with_what_was_refused_and_deleted(live: Live, elmyr: Elmyr) -> None:
    manifest = live.add_dataset("coats", num_classes=2)
    refused = [Refusal(path="a\x1b[2J.png", reason="cannot be decoded")]
    datasets.publish(
        live.store,
        manifest.model_copy(update={"version": "d2", "refused": refused, "num_refused": 2}),
    )
    out, err = elmyr("datasets", "get", "coats")
    assert "classes:    class 0 (50), class 1 (50)" in out
    assert out.splitlines()[-1] == "  a\N{REPLACEMENT CHARACTER}[2J.png: cannot be decoded"
    assert "and 1 more" in err
    assert json.loads(elmyr("datasets", "get", "coats", "-o", "json")[0])["num_refused"] == 2
    elmyr("datasets", "delete", "coats", code=1)  # nobody there to ask
    assert elmyr("datasets", "delete", "coats", "--yes")[0] == "coats\n"
    elmyr("datasets", "get", "coats", code=6)


def test_help_explains_exit_codes_and_commands(elmyr: Elmyr) -> None:
    assert [line.split()[0] for line in elmyr.lines("help", "exit-codes")] == [
        "0", "1", "2", "3", "4", "5", "6", "124", "130",
    ]  # fmt: skip
    assert "Usage: elmyr jobs wait" in elmyr("help", "jobs", "wait")[0]


@pytest.fixture
def draw(live: Live, elmyr: Elmyr) -> Iterator[Callable[..., Path]]:
    """Run `elmyr sample tailor` into a file, against real serving."""
    publish_forger(Registry(live.store), "tailor")
    with listening(replicas.interactive(live.settings)) as url:
        elmyr.set("ELMYR_SERVE_URL", url)

        def draw(file: str, *words: str) -> Path:
            assert elmyr.lines("sample", "tailor", "-o", file, *words) == [file]
            return elmyr.folder / file

        yield draw


def test_models_and_their_pictures(elmyr: Elmyr, live: Live, draw: Callable[..., Path]) -> None:
    publish_forger(Registry(live.store), "tailor", seed=1)
    assert elmyr("models", "promote", "tailor", "1")[0] == "tailor@production\n"
    (model,) = json.loads(elmyr("models", "list", "-o", "json")[0])
    assert (model["versions"], model["aliases"]) == ([1, 2], {"latest": 2, "production": 1})
    assert Image.open(draw("one.png", "--seed", "1")).size == (16, 16)
    assert (
        draw("again.png", "--seed", "1").read_bytes() == draw("one.png", "--seed", "1").read_bytes()
    )
    assert Image.open(draw("sheet.png", "-n", "4", "--label", "bag")).size == (38, 38)
    with zipfile.ZipFile(
        draw("all.zip", "-n", "3", "--label", "1", "--truncation", "0.5")
    ) as archive:
        assert archive.namelist() == [f"{i:07d}.png" for i in range(3)]
    assert len(json.loads(draw("all.json", "-n", "2").read_bytes())["images"]) == 2
    assert "there are" in elmyr("sample", "tailor", "--label", "hat", code=2)[1]
    assert "takes no prompt" in elmyr("sample", "tailor", "--prompt", "a hat", code=2)[1]
    assert "tailor" in elmyr("sample", "taylor", code=6)[1]


def test_models_are_shown_and_deleted(live: Live, elmyr: Elmyr) -> None:
    registry = Registry(live.store)
    for seed in range(3):
        publish_forger(registry, "tailor", seed=seed)
    registry.move_alias("tailor", "production", 2, by="me")
    for ref, version in (("tailor", 3), ("tailor@1", 1), ("tailor@production", 2)):
        assert f"version:    {version}" in elmyr.lines("models", "get", ref)
    assert json.loads(elmyr("models", "get", "tailor@1", "-o", "json")[0])["version"] == 1
    registry.add_evaluation(
        Evaluation(
            job_id="job-1",
            model="tailor",
            version=1,
            dataset="coats",
            dataset_version="d1",
            held_out=True,
            n=100,
            num_reference=100,
            num_neighbours=0,
            seed=0,
            features="inception:abc",
            yardstick=None,
            scores={"frechet_distance": Score(value=3, floor=1, ceiling=9)},
            created_at=clock.now(),
        )
    )
    *_, of, score = elmyr.lines("models", "get", "tailor@1")
    assert of == "against coats, n 100, in features inception:abc:"
    assert score.split("\t") == ["frechet_distance", "3", "1", "9"]
    assert "there are: latest, production" in elmyr("models", "get", "tailor@x", code=6)[1]
    elmyr("models", "delete", "tailor", code=1)  # nobody there to ask
    elmyr("models", "delete", "tailor@", "-y", code=2)  # as where a script's variable is empty
    assert "production: move the alias" in elmyr("models", "delete", "tailor@2", "-y", code=1)[1]
    for ref in ("tailor@production", "tailor@2", "tailor"):
        assert elmyr("models", "delete", ref, "-y")[0] == f"{ref}\n"
    assert elmyr.lines("models", "list") == []


def test_no_name_leads_elsewhere(live: Live, elmyr: Elmyr) -> None:
    publish_forger(Registry(live.store), "tailor")
    for command in (("datasets", "delete"), ("datasets", "get"), ("jobs", "cancel")):
        for name in ("../models/tailor", "..", "a/b", "", "%2e%2e"):
            words = (*command, name, *(["--yes"] if "delete" in command else []))
            assert "is no name" in elmyr(*words, code=2)[1]
    assert elmyr.lines("models", "list", "-o", "id") == ["tailor"]


def test_a_picture_is_encoded_and_led_to_another(elmyr: Elmyr, draw: Callable[..., Path]) -> None:
    draw("coat.png", "--seed", "1", "--label", "bag")
    assert elmyr.lines("encode", "tailor", "coat.png", "-o", "coat.json") == ["coat.json"]
    found = json.loads((elmyr.folder / "coat.json").read_text())
    assert (found["model"], found["label"], len(found["z"])) == ("tailor", 1, 16)
    for file in ("again.png", "again.webp"):
        elmyr("encode", "tailor", "coat.png", "--label", "1", "-o", file)
        assert Image.open(elmyr.folder / file).size == (16, 16)
    elmyr("interpolate", "tailor", "coat.json", "coat.png", "-n", "4", "-o", "way.png")
    assert Image.open(elmyr.folder / "way.png").size == (38, 38)
    elmyr("interpolate", "tailor", "3", "4", "--label", "boot", "-o", "way.zip")
    with zipfile.ZipFile(elmyr.folder / "way.zip") as archive:
        assert len(archive.namelist()) == 8
    (elmyr.folder / "not.json").write_text("{}")
    for words, code, says in (
        (("encode", "tailor"), 2, "--dataset"),
        (("encode", "tailor", "coat.png", "-o", "coat.gif"), 2, "coat.gif"),
        (("encode", "tailor", "coat.json"), 2, "PNG, JPEG or WebP"),
        (("encode", "tailor", "missing.png"), 1, "missing.png"),
        (("interpolate", "tailor", "not.json", "4"), 2, "not.json"),
        (("interpolate", "tailor", "3", "4", "-o", "way.gif"), 2, "way.gif"),
    ):
        assert says in elmyr(*words, code=code)[1]


def test_a_dataset_is_encoded_by_a_job(live: Live, elmyr: Elmyr) -> None:
    publish_forger(Registry(live.store), "tailor")
    words = ("encode", "tailor", "--dataset", "garments", "-n", "9", "--seed", "2", "--detach")
    (job_id,) = elmyr.lines(*words)
    job = live.queue.get(job_id)
    assert job.kind is JobKind.ENCODE
    assert (job.spec["model"], job.spec["n"], job.spec["seed"]) == ("tailor@1", 9, 2)
    assert job.spec["dataset_version"]


def test_many_pictures_come_from_a_job(live: Live, elmyr: Elmyr) -> None:
    publish_forger(Registry(live.store), "tailor")
    process = elmyr.start("sample", "tailor", "-n", "300", "--seed", "2", "-o", "many.zip")
    assert process.stderr is not None
    job = live.start(process.stderr.readline().split()[2])
    assert (job.spec["model"], job.spec["n"], job.spec["seed"]) == ("tailor@1", 300, 2)
    chunk = elmyr.folder / "chunk.zip"
    with zipfile.ZipFile(chunk, "w") as archive:
        archive.writestr("0000000.png", b"picture")
    live.store.put(keys.sampled_chunk(job.id, 0), chunk.read_bytes())
    live.queue.heartbeat(job.id, job.token, Progress(done=64, of=300))
    assert "64/300\n" in iter(process.stderr.readline, "")
    live.end(job, Outcome.SUCCEEDED)
    out, err = process.communicate()
    assert (process.returncode, out) == (0, "many.zip\n"), err
    with zipfile.ZipFile(elmyr.folder / "many.zip") as archive:
        assert archive.read("0000000.png") == b"picture"
