"""The report for a person: tables in a terminal, the same as plain text in a pipe."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.table import Table

from ebmkit.bench.loading import LoadingReport
from ebmkit.bench.running import Report, rates
from ebmkit.bench.sampling import SamplingReport
from ebmkit.bench.timing import Ratio, Timing
from ebmkit.bench.training import TrainingReport

TITLES = {"float32": "float32", "bf16": "bf16", "tf32": "TF32"}
"""How the kinds of arithmetic are called."""


def show(report: Report, target: Console) -> None:
    """Print everything."""
    machine, limits = report.machine, report.ceilings
    target.print(
        f"{report.recipe} on {machine['device_name']}, {machine['threads']} of {machine['processors']} CPU threads, "
        f"torch {machine['torch']}, ebmkit {machine['ebmkit']}",
        markup=False,
        style="bold",
    )
    products = ", ".join(f"{limits[name] / 1e12:.3g} in {told}" for name, told in TITLES.items() if name in limits)
    target.print(f"limits of this machine: {products} TFLOP/s; copies {limits['copy'] / 1e9:.3g} GB/s", markup=False)
    if report.made_up_images:
        target.print("images: made up", markup=False)
    if report.no_reference is not None and (report.training or report.sampling):
        target.print(f"no reference: {report.no_reference}", markup=False)
    if report.training is not None:
        _compared(report, report.training, "training", "step", target)
        _split(report.training.split, target)
    if report.sampling is not None:
        _compared(report, report.sampling, "sampling", "sweep", target)
        part = report.sampling
        evaluations = part.gradients * part.batch_size / part.ebmkit.median
        target.print(f"{part.gradients} gradients an image, {evaluations:.4g} a second")
    if report.data is not None:
        _loading(report.data, target)


def ratio_text(ratio: Ratio) -> str:
    """`1.52 (1.49 to 1.55)`."""
    return f"{ratio.value:.2f} ({ratio.lowest:.2f} to {ratio.highest:.2f})"


def _compared(report: Report, part: TrainingReport | SamplingReport, name: str, unit: str, target: Console) -> None:
    head = (
        f"{name}, batch {part.batch_size}",
        "images/s",
        f"s/{unit}",
        "lowest",
        "highest",
        f"first {unit}, s",
        "peak MB",
    )
    rows = [_row("ebmkit", part.ebmkit, part.batch_size)]
    if part.reference is not None:
        rows.append(_row("reference", part.reference, part.batch_size))
    target.print()
    target.print(_table(head, rows))
    compiling = part.compiling if isinstance(part, TrainingReport) else 0.0
    target.print(f"fast path: {part.fast}" + (f"; compiled in {compiling:.0f} s" if compiling else ""), markup=False)
    if part.ratio is not None:
        target.print(f"ebmkit is {ratio_text(part.ratio)} times as fast as the reference", style="bold", markup=False)
    if part.cost is not None:
        found, limits = rates(part, report.ceilings), report.ceilings
        # A processor without bf16 arithmetic has no limit there that anyone would want to reach.
        useful = [kind for kind in TITLES if limits.get(kind, 0.0) >= limits["float32"]]
        shares = ", ".join(f"{found[f'share_of_{kind}']:.0%} of the limit in {TITLES[kind]}" for kind in useful)
        target.print(
            f"{part.cost.flops / 1e9:.4g} GFLOP a {unit}, {found['flops_per_second'] / 1e12:.3g} TFLOP/s: {shares}",
            markup=False,
        )
        target.print(
            f"{part.cost.bytes / 1e9:.3g} GB read and written by unfused operators, "
            f"{found['share_of_copy']:.0%} of the rate of copies",
            markup=False,
        )


def _row(name: str, timing: Timing, batch_size: int) -> list[str]:
    memory = "-" if timing.peak_memory is None else f"{timing.peak_memory / 1e6:.0f}"
    times = (timing.median, min(timing.seconds), max(timing.seconds), timing.first)
    return [name, f"{batch_size / timing.median:.4g}", *(f"{value:.4g}" for value in times), memory]


def _split(split: dict[str, float], target: Console) -> None:
    whole = sum(split.values())
    rows = [[name, f"{1000 * value:.2f}", f"{value / whole:.1%}"] for name, value in split.items()]
    target.print()
    target.print(_table(("ebmkit's step", "ms", "share"), rows))


def _loading(data: dict[str, LoadingReport], target: Console) -> None:
    rows = [
        [name, f"{item.images_per_second:.4g}", f"{item.first:.3g}", f"{item.waiting:.1%}"]
        for name, item in data.items()
    ]
    target.print()
    target.print(_table(("data", "images/s", "first batch, s", "of a step, waiting"), rows))


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for number, title in enumerate(head):
        table.add_column(title, justify="right" if number else "left")
    for row in rows:
        table.add_row(*row)
    return table
