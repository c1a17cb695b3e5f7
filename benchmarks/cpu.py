"""The tables of docs/benchmarks/cpu.md: `ebmkit bench` for the recipes that have targets on two CPU cores.

    python benchmarks/cpu.py --out docs/benchmarks

Runs the commands that the page shows, and puts what they print beneath them.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
from pathlib import Path

from pages import write_measured

UNET = "ebmkit bench cifar10_unet --batch-size 16 --set energy.channels=64"
COMMANDS = (
    "ebmkit bench digits",
    f"{UNET} --train --steps 2 --rounds 6",
    f"{UNET} --sample --steps 1 --rounds 6 --set time_steps=5",
)


def main() -> None:
    """Read the command line, measure, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, metavar="FOLDER", required=True, help="write cpu.md and pictures there")
    folder: Path = parser.parse_args().out
    pieces = []
    for number, command in enumerate(COMMANDS):
        words = shlex.split(command)[1:]
        if number == 0:
            words += ["--picture", str(folder / "digits.png")]
        told = subprocess.run(
            [sys.executable, "-m", "ebmkit", *words],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "COLUMNS": "120"},
        ).stdout
        pieces.append(f"```console\n$ {command}\n{told.strip()}\n```")
    write_measured(folder / "cpu.md", "\n\n".join(pieces))


if __name__ == "__main__":
    main()
