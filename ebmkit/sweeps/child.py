"""`ebmkit WORDS` in a process that is asked to stop when the one that started it is gone, however that ended."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """`python -m ebmkit.sweeps.child PARENT WORDS`."""
    parent, words = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        # SIGTERM, not SIGKILL: training writes a checkpoint, and nothing is lost.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        # It was gone before the kernel was asked to watch it.
        sys.exit(1)
    sys.argv = ["ebmkit", *words]
    from ebmkit.cli import main as command_line

    command_line()


if __name__ == "__main__":
    main()
