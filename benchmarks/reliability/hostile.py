"""Hostile files, each made for real, and every command that reads it, in a process of its own.

Promised: whatever a model file, a shard, a recipe or a sweep file holds, no code in it runs, nothing is unpickled, no
process is started, no connection opened, and nothing written outside of the folders that the command is for: an audit
hook of Python watches the process. Memory stays in `MOST_MB` above that of an idle process, it ends by itself. A
file that is refused is named, on a terminal that stays as it is, by an error for people (exit code 1 or 2).
"""

from __future__ import annotations

import random
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parent))
from children import Ended, Server
from hostile_models import Hostile, hostile_models, table_of, write_model
from hostile_recipes import hostile_recipes, hostile_sweeps
from hostile_shards import around, hostile_shards

MOST_MB = 2500.0
"""Peak memory above an idle process. A WebP image at the limit of 134 million pixels takes most of it."""
MOST_SECONDS = 240.0
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


class Case(NamedTuple):
    """A hostile file and a command that reads it."""

    kind: str
    hostile: Hostile
    words: Sequence[str]
    """`FILE` stands for the file, `RUN` for a run folder whose model it is, `FOLDER` for one that holds it alone."""


MODEL_COMMANDS: tuple[tuple[str, ...], ...] = (
    ("load", "FILE"),
    ("sample", "FILE", "--count", "2", "--out", "out.png"),
    ("sample", "FOLDER", "--count", "2", "--out", "out"),
    ("evaluate", "FILE", "--count", "4"),
    ("evaluate", "RUN/model.safetensors", "--count", "4"),
    ("ood", "FILE", "--against", "noise"),
    ("likelihood", "FILE", "--images", "4", "--chains", "4", "--stops", "2"),
    ("plot", "trajectory", "FILE", "--count", "2", "--out", "out.png"),
    ("plot", "interpolation", "FILE", "--count", "2", "--out", "out.png"),
    ("plot", "energies", "FILE", "--count", "4", "--out", "out.png"),
    ("plot", "neighbours", "FILE", "--count", "2", "--out", "out.png"),
    ("plot", "histogram", "FILE", "--count", "4", "--out", "out.png"),
    ("report", "RUN", "--out", "out.html"),
    ("export", "RUN", "--out", "out.safetensors"),
    ("push", "FOLDER", "owner/name"),
)
"""Every command that takes a model, its folder or its run."""
SHARD_COMMANDS: tuple[tuple[str, ...], ...] = (
    ("evaluate", "MODEL", "--count", "4", "--data", "FILE"),
    ("train", "RECIPE", "--run-dir", "run", "--set", "data.shards=FILE", "data.wrong_size=resize"),
    ("train", "RECIPE", "--run-dir", "run", "--set", "data.shards=FILE", "data.wrong_size=resize", "data.cache=off"),
    ("ood", "MODEL", "--against", "FILE", "--resize"),
    ("make-shards", "FILE", "made", "--size", "8", "--workers", "1"),
)
RECIPE_COMMANDS: tuple[tuple[str, ...], ...] = (("check", "FILE"), ("train", "FILE", "--run-dir", "run"))
SWEEP_COMMANDS: tuple[tuple[str, ...], ...] = (("sweep", "FILE", "--out-dir", "swept"),)
# `export` reads the run's checkpoint, `report` shows what can be shown.
NOT_READ = ("report", "export")


def cases(good: Path, shards: str, recipe: Path, large: bool) -> list[Case]:
    """Every hostile file with every command."""
    found: list[Case] = []
    kinds: tuple[tuple[str, list[Hostile], tuple[tuple[str, ...], ...]], ...] = (
        ("model", hostile_models(good), MODEL_COMMANDS),
        ("shard", hostile_shards(large), SHARD_COMMANDS),
        ("recipe", hostile_recipes(shards), RECIPE_COMMANDS),
        ("sweep", hostile_sweeps(recipe), SWEEP_COMMANDS),
    )
    for kind, files, commands in kinds:
        found += [Case(kind, hostile, words) for hostile in files for words in commands]
    return found


def campaign(count: int, folder: Path, progress: Callable[[str], None]) -> dict[str, Any]:
    """`count` cases (0: all), chosen at random but always the same; figures, and what went wrong under "failures"."""
    good, shard, recipe = harmless(folder)
    found = cases(good, str(shard), recipe, large=not 0 < count < 200)
    if count:
        found = random.Random(0).sample(found, min(count, len(found)))
    return run_cases(found, folder, progress)


def harmless(folder: Path) -> tuple[Path, Path, Path]:
    """A model, a shard and a recipe that hurt nobody, written into `folder`."""
    import tomli_w

    folder.mkdir(parents=True, exist_ok=True)
    good, shard, recipe = (folder / f"harmless.{suffix}" for suffix in ("safetensors", "tar", "toml"))
    shard.write_bytes(around(b""))
    recipe.write_text(tomli_w.dumps(table_of(str(shard))))
    write_model(good, str(shard))
    return good, shard, recipe


def run_cases(chosen: Sequence[Case], folder: Path, progress: Callable[[str], None]) -> dict[str, Any]:
    """The figures of these cases, with what `harmless` wrote into `folder`."""
    good, shard, recipe = (folder / f"harmless.{suffix}" for suffix in ("safetensors", "tar", "toml"))
    server_folder = folder / "server"
    server_folder.mkdir()
    failures: list[str] = []
    codes: Counter[str] = Counter()
    memory: Counter[str] = Counter()
    seconds: Counter[str] = Counter()
    written: dict[tuple[str, str], Path] = {}
    cache = {"EBMKIT_CACHE": str(server_folder / "cache"), "TMPDIR": str(server_folder)}
    with Server(server_folder, cache) as server:
        for number, case in enumerate(chosen):
            name = (case.kind, case.hostile.name)
            if name not in written:
                written[name] = _write(case, folder, len(written), shard)
            path, work = written[name], folder / f"case-{number:04d}"
            work.mkdir()
            words = [_word(word, path, good, recipe) for word in case.words]
            ended = server.run(words, work, [path.parent], MOST_SECONDS)
            label = f"{case.kind} '{case.hostile.name}', ebmkit {' '.join(case.words)}"
            for problem in problems(case, ended, path, work):
                failures.append(f"{label}: {problem}")
                progress(failures[-1])
            codes["killed" if ended.code is None else str(ended.code)] += 1
            memory[case.kind] = max(memory[case.kind], round(ended.rise_mb))
            seconds[case.kind] = max(seconds[case.kind], round(ended.seconds))
            if number % 50 == 49:
                progress(f"{number + 1} of {len(chosen)} cases, {len(failures)} failures")
    return {
        "cases": len(chosen),
        "files": dict(Counter(kind for kind, _ in written)),
        "exit_codes": dict(sorted(codes.items())),
        "peak_mb_above_idle": dict(memory),
        "longest_seconds": dict(seconds),
        "failures": failures,
    }


def _write(case: Case, folder: Path, number: int, shard: Path) -> Path:
    """The hostile file, in a folder of its own; a model file also as the model of a run."""
    own = folder / f"hostile-{number:03d}"
    own.mkdir()
    suffix = {"model": ".safetensors", "shard": ".tar", "recipe": ".toml", "sweep": ".toml"}[case.kind]
    path = own / f"{'model' if case.kind == 'model' else 'hostile'}{suffix}"
    case.hostile.make(path)
    if case.kind == "model":
        import tomli_w

        run = own / "run"
        run.mkdir()
        (run / "recipe.toml").write_text(tomli_w.dumps(table_of(str(shard))))
        (run / "model.safetensors").hardlink_to(path)
        for name in ("recipe.toml", "README.md", "samples.png"):
            (own / name).write_text("")
    return path


def _word(word: str, path: Path, good: Path, recipe: Path) -> str:
    places = {"MODEL": good, "RECIPE": recipe, "RUN": path.parent / "run", "FOLDER": path.parent, "FILE": path}
    for name, place in places.items():
        word = word.replace(name, str(place))
    return word


def problems(case: Case, ended: Ended, path: Path, work: Path) -> Iterator[str]:
    """What the promise forbids and yet happened."""
    if ended.code is None:
        yield f"was not at its end after {ended.seconds:.0f} s"
        return
    if ended.code not in (0, 1, 2):
        yield f"ended with {ended.code}: {ended.output[-600:]}"
    if "Traceback" in ended.output:
        yield f"a traceback: {ended.output[-900:]}"
    if ended.code in (1, 2):
        # Or the shard that a model names, where it is that which does not fit, or the repository.
        named = any(
            name in ended.output
            for name in (path.name, str(path.parent), "harmless.tar", "hf://", "data.shards: ", "/etc/passwd")
        )
        if not named:
            yield f"the file is not named: {ended.output[-600:]}"
        if "error: " not in ended.output:
            yield f"no error for people: {ended.output[-600:]}"
    if ended.code == 0 and not case.hostile.usable and case.words[0] not in NOT_READ and case.kind != "shard":
        yield f"was taken for a good one: {ended.output[-300:]}"
    if found := _CONTROL.search(ended.output):
        yield f"control character {found[0]!r} in the output"
    if len(ended.output) > 20_000:
        yield f"an output of {len(ended.output):,} characters"
    if ended.rise_mb > MOST_MB:
        yield f"took {ended.rise_mb:,.0f} MB"
    yield from (f"forbidden: {event}" for event in ended.events)
    for place in (work, path.parent, path.parent / "run", work.parent):
        if (place / "exploded").exists():
            yield "the command in it was run"
