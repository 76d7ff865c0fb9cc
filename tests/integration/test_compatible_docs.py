"""The Python of docs/compatible.md runs as it stands, on a model as the demo makes it."""

from __future__ import annotations

import io
import re
from contextlib import redirect_stdout
from pathlib import Path

import pytest

from services.serving import replicas
from shared.settings import Settings
from shared.storage.objects import ObjectStore
from shared.storage.registry import Registry
from tests.forgers import publish_garments
from tests.live import listening

ROOT = Path(__file__).parents[2]
DOCUMENTED = "127.0.0.1:8000"


def test_the_snippets_run(
    settings: Settings,
    object_store: ObjectStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = (ROOT / "examples/fashion-mnist/classes.txt").read_text().splitlines()
    publish_garments(Registry(object_store), "garments", names)
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs/compatible.md").read_text()
    snippets = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(snippets) == 2
    said = io.StringIO()
    with listening(replicas.interactive(settings)) as url, redirect_stdout(said):
        for snippet in snippets:
            exec(snippet.replace(DOCUMENTED, url.removeprefix("http://")), {})
    assert {path.name for path in tmp_path.iterdir()} == {f"boot-{i}.png" for i in range(4)}
    for part in ("['garments']", "&index=0 Bag", "(4, 32, 32, 1)", "(2, 32, 32, 1)"):
        assert part in said.getvalue()
