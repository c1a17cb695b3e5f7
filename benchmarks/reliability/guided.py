"""Fuzzing that follows coverage, for who has atheris: `python guided.py shards FOLDER -max_total_time=600`.

The parts are those of `fuzz.py` that take bytes: toml, shards, images, models, states. FOLDER begins with inputs of
`fuzz.py`, and keeps what reached new code. It ends at the first input that is neither used nor refused by an error for
people.
"""

from __future__ import annotations

import random
import sys
import tempfile
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parent))
WATCHED = ["ebmkit.data", "ebmkit.toml", "ebmkit.binder", "ebmkit.recipe", "ebmkit.model_file"]
with atheris.instrument_imports(include=WATCHED):
    import fuzz_targets

    from ebmkit.errors import EbmkitError

BEGINNING = 200
"""Inputs to begin with."""


def main() -> None:
    """Until atheris has had enough."""
    part, corpus, *options = sys.argv[1:]
    folder = Path(tempfile.mkdtemp(prefix="ebmkit-guided-"))
    make, use = fuzz_targets.TARGETS[part](folder)
    Path(corpus).mkdir(parents=True, exist_ok=True)
    for number in range(BEGINNING):
        (Path(corpus) / f"made-{number}").write_bytes(make(random.Random(f"{part} {number}")))

    def once(data: bytes) -> None:
        try:
            use(data)
        except EbmkitError:
            return

    atheris.Setup([sys.argv[0], *options, "-timeout=10", "-rss_limit_mb=4000", corpus], once)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
