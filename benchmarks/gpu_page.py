"""The page of `benchmarks/gpu.sh`: its tables, and which of the targets are met.

    python benchmarks/gpu_page.py docs/benchmarks/gpu

Reads the files that gpu.sh left in that folder, and writes gpu.md beside it. What a part did not give is missing there.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from pages import markdown, write_measured
from parts import table_of

from ebmkit.console import console

PAPER_SECONDS = 1332


def main() -> None:
    """Read the command line and the files, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    found = {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}
    targets = markdown(["", "measured", "target", ""], [list(row) for row in targets_of(found)])
    pieces = [_machine(found, folder / "driver.txt"), targets]
    pieces += [_split(name, found[name]["training"]["split"]) for name in ("eager", "compiled") if name in found]
    if "batches" in found:
        rows = [
            [f"{row['batch']}", f"{row['images_per_second']:.0f}", f"{(row['peak_memory'] or 0) / 1e9:.1f}"]
            for row in found["batches"]["rows"]
        ]
        full = found["batches"]["full"]
        pieces += [markdown(["batch", "images/s", "peak GB"], rows), f"Too large: {full}." if full else ""]
    if "parts" in found:
        pieces.append(table_of(found["parts"]["steps"], found["parts"]["sweeps"]))
    text = "\n\n".join(piece for piece in pieces if piece)
    write_measured(folder.parent / "gpu.md", text)
    console().print(text, markup=False)


def targets_of(found: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """Each figure that has a target: what it is, what was measured, what is wanted, and whether that is met."""
    rows = []
    for name in ("eager", "compiled"):
        for kind, wanted in (("training", 6.0), ("sampling", 8.0)):
            part = found.get(name, {}).get(kind)
            if part and part.get("ratio"):
                value = part["ratio"]
                met = _met(value["value"] >= wanted)
                rows.append((f"{kind}, {name}, to the reference", _spread(value), f">= {wanted:g}", met))
    for kind, wanted in (("training", 6.0), ("sampling", 8.0)):
        value = found.get("strict", {}).get("ratios", {}).get(kind, {}).get("reference without TF32")
        if value:
            met = _met(value["value"] >= wanted)
            rows.append((f"{kind}, compiled, to the reference without TF32", _spread(value), f">= {wanted:g}", met))
    compiling = (found.get("compiled", {}).get("training") or {}).get("compiling")
    if compiling is not None:
        rows.append(("compiling to train", f"{compiling:.0f} s", "<= 90 s", _met(compiling <= 90)))
    for name, size, images, wanted in (("draw32", "32x32", 50_000, 45.0), ("draw64", "64x64", 50_000, 180.0)):
        if name in found:
            seconds = found[name]["seconds"] * images / found[name]["count"]
            scaled = "" if found[name]["count"] == images else f", scaled from {found[name]['count']:,}"
            note = f"{seconds:.0f} s{scaled}" + (f" (the paper: {PAPER_SECONDS} s)" if size == "32x32" else "")
            rows.append((f"50,000 images of {size}", note, f"<= {wanted:g} s", _met(seconds <= wanted)))
            starting = found[name]["starting"]
            rows.append((f"starting to draw {size}, compiling", f"{starting:.0f} s", "<= 90 s", _met(starting <= 90)))
    if "again" in found:
        rows.append(("starting once more, from the cache", f"{found['again']['starting']:.0f} s", "", ""))
    streamed = (found.get("data", {}).get("data") or {}).get("streamed")
    if streamed:
        share = streamed["waiting"]
        rows.append(("of a step, waiting for shards", f"{share:.1%}", "<= 2 %", _met(share <= 0.02)))
    return rows


def _spread(value: dict[str, float]) -> str:
    return f"{value['value']:.2f} ({value['lowest']:.2f} to {value['highest']:.2f})"


def _split(name: str, split: dict[str, float]) -> str:
    whole = sum(split.values())
    shares = ", ".join(f"{part} {seconds / whole:.0%}" for part, seconds in split.items())
    return f"A step, {name}: {shares}."


def _machine(found: dict[str, Any], driver: Path) -> str:
    first = next((item for item in found.values() if "machine" in item), None)
    if first is None:
        return ""
    machine = first["machine"]
    known = [machine["device_name"]]
    known += [f"driver {driver.read_text().strip()}"] if driver.is_file() else []
    known += [f"CUDA {machine['cuda']}"] if "cuda" in machine else []
    known += [f"torch {machine['torch']}", f"ebmkit {machine['ebmkit']}", first["date"][:10]]
    return ", ".join(known) + "."


def _met(yes: bool) -> str:
    return "met" if yes else "missed"


if __name__ == "__main__":
    main()
