"""From the figures of an experiment to its page and pictures."""

from __future__ import annotations

from pathlib import Path

from ebmkit.console import console

PAGES = Path(__file__).resolve().parents[2] / "docs" / "results"


def publish(path: Path) -> None:
    """Write what stands beside the figures `path`: NAME.md, NAME.png, and NAME_course.png where runs were followed."""
    # They import matplotlib, for which a mistake on the command line need not wait.
    from benchmarks.results import gathering, page, picture

    figures = gathering.read(path)
    if "points" not in figures:
        # Another script's: damage.json.
        return
    picture.draw_ratios(figures, path.with_suffix(".png"))
    picture.draw_courses(figures, path.with_name(f"{path.stem}_course.png"))
    page.write(figures, path.with_suffix(".md"))
    console().print(f"{path.with_suffix('.md')}: {len(figures['points'])} points", markup=False)
