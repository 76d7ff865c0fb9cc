"""Where the client goes and which key it takes along: arguments, environment, data folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import SecretStr

from services.client import connection
from services.client.connection import Connection
from services.client.errors import NoStack
from shared.errors import InvalidInput

STACK = {
    "api_url": "http://127.0.0.1:8080",
    "serve_url": "http://127.0.0.1:8000",
    "api_key": "elm_of-the-stack",
    "parts": [],
}
LOCAL = Connection(STACK["api_url"], STACK["serve_url"], SecretStr("elm_of-the-stack"))


@pytest.fixture(autouse=True)
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a stack, found by ELMYR_DATA_DIR; nothing else is set."""
    for name in ("URL", "SERVE_URL", "API_KEY", "SECRETS_DIR"):
        monkeypatch.delenv(f"ELMYR_{name}", raising=False)
    (tmp_path / "stack.json").write_text(json.dumps(STACK))
    monkeypatch.setenv("ELMYR_DATA_DIR", str(tmp_path))
    return tmp_path


def test_the_data_folder_tells(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert connection.find() == LOCAL
    monkeypatch.delenv("ELMYR_DATA_DIR")
    assert connection.find(data_dir=data_dir) == LOCAL
    monkeypatch.chdir(data_dir.parent)
    data_dir.rename(data_dir.parent / ".elmyr")
    assert connection.find() == LOCAL


def test_the_environment_goes_before_the_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ELMYR_URL", "https://elmyr.example/")
    monkeypatch.setenv("ELMYR_SERVE_URL", "https://serve.example/")
    monkeypatch.setenv("ELMYR_API_KEY", "elm_mine")
    found = connection.find()
    assert found == Connection(
        "https://elmyr.example", "https://serve.example", SecretStr("elm_mine")
    )


def test_arguments_go_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ELMYR_URL", "https://elmyr.example")
    monkeypatch.setenv("ELMYR_API_KEY", "elm_mine")
    found = connection.find("http://a", "http://s", "elm_given")
    assert found == Connection("http://a", "http://s", SecretStr("elm_given"))


def test_the_key_of_a_local_stack_never_goes_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    assert connection.find("https://elmyr.example").api_key is None
    monkeypatch.setenv("ELMYR_URL", "https://elmyr.example")
    assert connection.find() == Connection("https://elmyr.example", None, None)


def test_the_key_does_not_show() -> None:
    assert "elm_of-the-stack" not in repr(connection.find())


def test_no_stack_says_what_to_do(data_dir: Path) -> None:
    (data_dir / "stack.json").unlink()
    with pytest.raises(NoStack, match="elmyr up"):
        connection.find()


def test_a_broken_state_file_is_named(data_dir: Path) -> None:
    (data_dir / "stack.json").write_text("{")
    with pytest.raises(NoStack, match=r"stack\.json is not the state of a stack"):
        connection.find()


@pytest.mark.parametrize("url", ["elmyr.example:8080", "ftp://elmyr.example", "http://"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(InvalidInput, match="no address"):
        connection.find(url)
