"""The Python client of Elmyr: `from services.client import Client`."""

from services.client.client import Client
from services.client.errors import JobCanceled, JobFailed, NoStack, Unreachable, WaitTimedOut

__all__ = ["Client", "JobCanceled", "JobFailed", "NoStack", "Unreachable", "WaitTimedOut"]
