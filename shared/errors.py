"""Every error that a user can meet, with its HTTP status and its machine-readable code.

    ElmyrError
    |-- InvalidInput          422  the request or the data is wrong; `errors` points at where
    |   |-- UnsafeImage       422  an uploaded file breaks a decoding limit
    |-- NotFound              404
    |-- Conflict              409  the state forbids it, or somebody was faster
    |   |-- StaleToken        409  an older attempt tried to write: it must stop
    |   |-- IdempotencyClash  422  the same Idempotency-Key with another body
    |   |-- PreconditionFailed 412 a conditional write lost
    |-- Unauthorized          401
    |-- Forbidden             403
    |-- TooLarge              413
    |-- TooMany               429  a limit of this caller; `retry_after_s` says when
    |-- Unavailable           503  a part of Elmyr is down or busy; `retry_after_s` says when
    |   |-- UnsafeStore       503  Redis or S3 does not hold what the design relies on
    |-- TrainingFailed        500  the run itself cannot go on (not finite, no memory ...)
    |-- CorruptObject         500  an object does not match its manifest: it is not loaded

A class docstring is the error's title; the message says what, which id, and what to do next.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import BaseModel


class FieldError(BaseModel):
    """One place in the input that is wrong. `pointer` is a JSON pointer (RFC 6901)."""

    pointer: str
    detail: str


class ElmyrError(Exception):
    """Something went wrong in Elmyr"""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "INTERNAL"

    def __init__(
        self,
        detail: str = "",
        *,
        errors: list[FieldError] | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(detail or self.title())
        self.detail = detail or self.title()
        self.errors = errors or []
        self.retry_after_s = retry_after_s
        self.request_id: str | None = None
        """Of the answer that brought this error to a client; with it a log line can be found."""

    @classmethod
    def title(cls) -> str:
        return (cls.__doc__ or cls.__name__).strip()


class InvalidInput(ElmyrError):
    """The request is not valid"""

    status = 422
    code = "INVALID_INPUT"


class UnsafeImage(InvalidInput):
    """An image breaks a decoding limit"""

    code = "UNSAFE_IMAGE"


class NotFound(ElmyrError):
    """There is no such thing"""

    status = 404
    code = "NOT_FOUND"


class Conflict(ElmyrError):
    """The present state forbids this"""

    status = 409
    code = "CONFLICT"


class StaleToken(Conflict):
    """A newer attempt owns this job"""

    code = "STALE_TOKEN"


class IdempotencyClash(Conflict):
    """This Idempotency-Key was used for another request"""

    status = 422
    code = "IDEMPOTENCY_CLASH"


class PreconditionFailed(Conflict):
    """Somebody else wrote this object first"""

    status = 412
    code = "PRECONDITION_FAILED"


class Unauthorized(ElmyrError):
    """A valid API key is needed"""

    status = 401
    code = "UNAUTHORIZED"


class Forbidden(ElmyrError):
    """This API key may not do this"""

    status = 403
    code = "FORBIDDEN"


class TooLarge(ElmyrError):
    """The body is too large"""

    status = 413
    code = "TOO_LARGE"


class TooMany(ElmyrError):
    """Too many requests"""

    status = 429
    code = "TOO_MANY"


class Unavailable(ElmyrError):
    """A part of Elmyr is not available"""

    status = 503
    code = "UNAVAILABLE"


class UnsafeStore(Unavailable):
    """Redis or S3 does not give the guarantees that Elmyr needs"""

    code = "UNSAFE_STORE"


class TrainingFailed(ElmyrError):
    """The training cannot go on"""

    code = "TRAINING_FAILED"


class CorruptObject(ElmyrError):
    """An object does not match its manifest"""

    code = "CORRUPT_OBJECT"
