"""Usage: python .ci/tests.py [-m coverage run] -m pytest ARGUMENTS

Run tests. Browsers, brokers, proxies and processes share a machine with each other here, and now and then one of
them does what nobody foresaw: where at most three of their tests failed, and no others, those run once more, alone.
What passes then is said to be flaky, with its first failure above. It is a fault all the same: look for its cause.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Final

# Where tests start programs. Whatever else fails has failed.
PROGRAMS: Final = tuple(
    f"tests/{name}"
    for name in (
        "admin/",
        "autobahn/",
        "backplanes/",
        "browser/",
        "cli/",
        "examples/",
        "gateway/",
        "integrations/",
        "interop/",
        "javascript/",
        "proxies/",
        "torture/",
        "test_demo.py",
        "test_howtos.py",
        "test_workers.py",
    )
)
MOST: Final = 3
FAILED: Final = 1  # pytest's status where tests ran, and some did not pass


def main(arguments: list[str]) -> int:
    """Return the status of the tests."""
    status = subprocess.call([sys.executable, *arguments])
    if status != FAILED:
        return status
    failed = list(json.loads(Path(".pytest_cache/v/cache/lastfailed").read_text(encoding="utf-8")))
    if not 0 < len(failed) <= MOST or not all(name.startswith(PROGRAMS) for name in failed):
        return status
    print(f"once more, alone: {' '.join(failed)}", flush=True)
    status = subprocess.call([sys.executable, *arguments[: arguments.index("pytest") + 1], *failed])
    if status == 0:
        print(f"FLAKY, failed among the others and passed alone: {' '.join(failed)}", flush=True)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
