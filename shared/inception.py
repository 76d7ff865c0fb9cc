"""Where the weights of Inception-v3 lie, without torch. Elmyr ships none."""

from __future__ import annotations

from pathlib import Path

from shared.errors import FieldError, InvalidInput


def find_inception(weights: Path | None, *, pointer: str = "") -> Path:
    """The file that the setting `inception_weights` names; whether it is what it should be, only
    its reader can say.

    Raises:
        InvalidInput: it names none; `pointer` says what in the request asked for it.
    """
    if weights is None:
        detail = (
            "scores in Inception's features need its weights, and here there are none: convert "
            "them as docs/evaluation.md says, and name the file by ELMYR_INCEPTION_WEIGHTS"
        )
        raise InvalidInput(detail, errors=[FieldError(pointer=pointer, detail=detail)])
    return weights
