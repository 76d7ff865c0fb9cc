"""`/docs`: the OpenAPI document as one page that a person can read, without scripts.

FastAPI's own page loads its scripts from a public host: a laptop without internet would see
nothing, and others would run somebody else's code.
"""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import Any

POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"
STYLE = """
:root { color-scheme: light dark }
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 50rem; margin: 2rem auto; padding: 0 1rem }
summary { cursor: pointer } code, summary { font-family: ui-monospace, monospace }
details { border-top: 1px solid #8884; padding: .4rem 0 } p { white-space: pre-line }
td { padding: .1rem 1rem .1rem 0; vertical-align: top }
"""

Node = dict[str, Any]


def page(document: Node) -> str:
    """The whole page."""
    title, summary = escape(document["info"]["title"]), escape(document["info"]["summary"])
    operations = "".join(_sections(document))
    return (
        f'<!DOCTYPE html><html lang="en"><meta charset="utf-8"><title>{title}: the API</title>'
        f"<style>{STYLE}</style><h1>{title}</h1><p>{summary}</p><p>Send the header <code>"
        "Authorization: Bearer elm_...</code>. For programs: <a href='/openapi.json'>openapi.json"
        f"</a>.</p>{operations}</html>"
    )


def _sections(document: Node) -> Iterator[str]:
    tag = None
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            if operation["tags"][0] != tag:
                tag = operation["tags"][0]
                yield f"<h2>{escape(tag)}</h2>"
            yield _operation(method.upper(), path, operation)


def _operation(method: str, path: str, operation: Node) -> str:
    body = operation.get("requestBody", {}).get("content", {})
    rows = [
        *((p["name"], p["in"], p.get("description", "")) for p in operation.get("parameters", [])),
        *(("body", kind, _name(content["schema"])) for kind, content in body.items()),
    ]
    answers = [
        (status, kind, f"{answer['description']} {_name(content.get('schema', {}))}")
        for status, answer in sorted(operation["responses"].items())
        for kind, content in answer.get("content", {"": {}}).items()
    ]
    return (
        f"<details><summary><b>{method}</b> {escape(path)}</summary>"
        f"<p>{escape(operation.get('description', ''))}</p>"
        f"{_table('Takes', rows)}{_table('Answers', answers)}</details>"
    )


def _table(title: str, rows: list[tuple[str, str, str]]) -> str:
    cells = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<h4>{title}</h4><table>{cells}</table>" if rows else ""


def _name(schema: Node) -> str:
    """The name of a schema that stands among the document's components, or nothing."""
    return str(schema.get("$ref", "")).rpartition("/")[2]
