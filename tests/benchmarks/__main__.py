"""`make bench`: all benchmarks, one after the other; each prints ratios within its own run.

    python -m tests.benchmarks [NAME ...]

The peers (rq, saq) come with the extra `bench`; LitServe is installed by its own benchmark into a
folder of its own. Those of quality (quality, collapse, replay, text, few) take an hour or more and
run only by name. Nothing else should run on the machine meanwhile.
"""

from __future__ import annotations

import subprocess
import sys

BENCHMARKS = ("loop", "checkpoint", "queue", "api", "start", "serving")


def main() -> None:
    """Run the named benchmarks, or all; ends with 1 when one of them failed."""
    failed = []
    for name in sys.argv[1:] or BENCHMARKS:
        sys.stdout.write(f"\n== {name}\n")
        sys.stdout.flush()
        module = f"tests.benchmarks.bench_{name}"
        if subprocess.run([sys.executable, "-m", module], check=False).returncode:
            failed.append(name)
    if failed:
        sys.exit(f"failed or below its target: {', '.join(failed)}")


if __name__ == "__main__":
    main()
