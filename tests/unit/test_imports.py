"""What processes import, since that is how long they take to start."""

from __future__ import annotations

import subprocess
import sys


def test_who_only_launches_ranks_imports_no_torch() -> None:
    code = """
import sys, workers.attempt, workers.jobs.train, workers.training.distributed
print("torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
