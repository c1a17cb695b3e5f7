"""Runs the experiments behind the recipes and writes their pages in docs/results.

    python -m benchmarks.results digits_choices --jobs 2
    python -m benchmarks.results cifar16_choices --set data.shards='shards/cifar10/train-*.tar'
    python -m benchmarks.results --page                  only the pages, from the figures in docs/results/

An experiment is a sweep of that name in recipes/sweeps. Its runs go to runs/results/NAME, or FOLDER/NAME, and the same
command goes on after a stop. Figures are docs/results/NAME.json, pictures NAME.png and NAME_samples.png beside it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.results.publishing import PAGES, publish

from ebmkit.errors import BadInput
from ebmkit.overrides import parse
from ebmkit.sweeps.file import find_sweep


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="experiments: sweeps by name, or sweep files")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of each run")
    parser.add_argument("--folder", type=Path, default=Path("runs/results"), help="where the runs go")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="changes")
    parser.add_argument("--partial", action="store_true", help="train nothing: figures from the runs that are there")
    parser.add_argument("--out", type=Path, default=PAGES, help="the folder of the pages")
    parser.add_argument("--page", action="store_true", help="train nothing: pages from the figures that are there")
    arguments = parser.parse_args()
    try:
        sweeps = {find_sweep(name).stem: name for name in arguments.names}
    except BadInput as error:
        parser.error(str(error))
    if not (arguments.names or arguments.page):
        parser.error("name an experiment, or ask for --page")
    from benchmarks.results import gathering, picture

    try:
        changes = parse(arguments.changes)
    except BadInput as error:
        parser.error(str(error))
    for name, source in sweeps.items():
        if arguments.page:
            break
        figures, runs = gathering.run(
            source, arguments.folder / name, arguments.jobs, arguments.threads, changes, arguments.partial
        )
        gathering.write(figures, arguments.out / f"{name}.json")
        picture.draw_samples(figures, runs, arguments.out / f"{name}_samples.png")
    for path in sorted(arguments.out.glob("*.json")):
        if not sweeps or path.stem in sweeps:
            publish(path)


if __name__ == "__main__":
    sys.exit(main())
