"""The surface of the API is frozen: a change is made on purpose, and shows in the diff."""

from __future__ import annotations

import json
from pathlib import Path

from services.api import docs
from services.api.openapi import document

SNAPSHOT = Path(__file__).with_name("openapi.json")
UPDATE = "python -m services.api.openapi > tests/unit/openapi.json"
OPEN = {"/healthz", "/readyz", "/metrics"}


def test_the_document_is_the_snapshot() -> None:
    assert document() == SNAPSHOT.read_text(), f"if the change is wanted: {UPDATE}"


def test_every_route_is_described_and_needs_a_key() -> None:
    for path, operations in json.loads(document())["paths"].items():
        for method, operation in operations.items():
            assert operation["description"], (method, path)
            assert ("security" in operation) is (path not in OPEN), (method, path)


def test_the_page_shows_every_route_and_runs_nothing() -> None:
    opened = json.loads(document())
    page = docs.page(opened)
    for path in opened["paths"]:
        assert path in page
    assert "<script" not in page
