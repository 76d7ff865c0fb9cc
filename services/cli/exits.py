"""Exit codes: one table, which the commands obey and `elmyr help exit-codes` prints."""

from __future__ import annotations

from enum import IntEnum

from services.client import JobCanceled, JobFailed, WaitTimedOut
from shared.errors import ElmyrError, Forbidden, InvalidInput, NotFound, Unauthorized


class ExitCode(IntEnum):
    OK = 0
    ERROR = 1
    USAGE = 2
    JOB_FAILED = 3
    AUTH = 4
    JOB_CANCELED = 5
    NOT_FOUND = 6
    TIMED_OUT = 124
    INTERRUPTED = 130


MEANINGS = {
    ExitCode.OK: "done; the job succeeded",
    ExitCode.ERROR: "an error of ours, of the server or of the network",
    ExitCode.USAGE: "the command line, or what it asks for, is not valid",
    ExitCode.JOB_FAILED: "the job that was followed or awaited failed",
    ExitCode.AUTH: "the API key is missing, wrong or not allowed to do this",
    ExitCode.JOB_CANCELED: "the job that was followed or awaited was canceled",
    ExitCode.NOT_FOUND: "there is no such job, dataset or model",
    ExitCode.TIMED_OUT: "the time given to `jobs wait` is over; the job goes on",
    ExitCode.INTERRUPTED: "Ctrl-C; a followed job goes on",
}

ERRORS: dict[type[ElmyrError], ExitCode] = {
    JobFailed: ExitCode.JOB_FAILED,
    JobCanceled: ExitCode.JOB_CANCELED,
    WaitTimedOut: ExitCode.TIMED_OUT,
    Unauthorized: ExitCode.AUTH,
    Forbidden: ExitCode.AUTH,
    NotFound: ExitCode.NOT_FOUND,
    InvalidInput: ExitCode.USAGE,
}


def exit_code(error: ElmyrError) -> ExitCode:
    """The exit code of a command that ended with this error."""
    return next((code for kind, code in ERRORS.items() if isinstance(error, kind)), ExitCode.ERROR)
