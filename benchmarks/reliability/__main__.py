"""Runs the campaigns for real and writes docs/reliability.md from their figures.

    python -m benchmarks.reliability                      all of them, hours
    python -m benchmarks.reliability kills soak           these; of the others the page keeps its figures
    python -m benchmarks.reliability --page               only the page, from the figures in docs/reliability/

Each campaign's figures are a JSON file in docs/reliability/, with the date, the versions and the machine.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import platform
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
FIGURES = ROOT / "docs" / "reliability"
# Some campaigns start their own modules as programs, which find each other by their bare names.
sys.path.insert(0, str(Path(__file__).parent))

COUNTS: dict[str, float] = {"kills": 60, "faults": 1, "divergence": 4, "hostile": 0, "fuzz": 120_000, "soak": 10}
"""What each campaign counts: kills, rounds, seeds of each fault, cases (0: all), inputs, minutes."""


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"campaigns: {', '.join(COUNTS)}; by default all")
    parser.add_argument("--count", type=float, help="instead of the usual count, for one campaign")
    parser.add_argument("--folder", type=Path, help="keep what the campaigns write here; divergence goes on in it")
    parser.add_argument("--page", action="store_true", help="run nothing")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.names if name not in COUNTS]
    if unknown:
        parser.error(f"no such campaign: {', '.join(unknown)}; there are {', '.join(COUNTS)}")
    failed = []
    for name in [] if arguments.page else arguments.names or COUNTS:
        figures = run(name, COUNTS[name] if arguments.count is None else arguments.count, arguments.folder)
        failed += [f"{name}: {failure}" for failure in figures["failures"]]
    importlib.import_module("benchmarks.reliability.page").write(FIGURES, ROOT / "docs" / "reliability.md")
    if failed:
        raise SystemExit("\n".join(failed))


def run(name: str, count: float, keep: Path | None) -> dict[str, Any]:
    """One campaign's figures, written to its file as well."""
    campaign = importlib.import_module(f"benchmarks.reliability.{name}").campaign
    begin = time.monotonic()
    with contextlib.ExitStack() as stack:
        if keep is None:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix=f"ebmkit-{name}-"))
        else:
            folder = str(keep / name)
            Path(folder).mkdir(parents=True, exist_ok=True)
        figures: dict[str, Any] = campaign(
            int(count) if count == int(count) else count,
            Path(folder),
            lambda text: print(f"{name}: {text}", flush=True),  # noqa: T201 - a program
        )
    figures = {
        "campaign": name,
        "count": int(count) if count == int(count) else count,
        **_where(),
        "seconds": round(time.monotonic() - begin),
        **figures,
    }
    FIGURES.mkdir(exist_ok=True)
    (FIGURES / f"{name}.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return figures


def _where() -> dict[str, str]:
    import torch

    import ebmkit

    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "versions": f"ebmkit {ebmkit.__version__}, torch {torch.__version__}, Python {platform.python_version()}",
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs",
    }


if __name__ == "__main__":
    main()
