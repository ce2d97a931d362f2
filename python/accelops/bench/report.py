"""A Result for people: a table, and the roofline as a picture. For programs there is Result.to_dict."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from rich.console import Console
from rich.table import Table

from .rows import LOSS, Row
from .run import Result


def show(result: Result, console: Console) -> None:
    """Print the table, the means and the notes."""
    console.print(table(result))
    for name, means in result.geometric_means().items():
        figures = ", ".join(f"{kind} {value:.2f}x" for kind, value in means.items())
        console.print(f"{name}: {figures}")
    losses = [f"{row.name} {row.direction}" for row in result.rows if row.loss]
    console.print(f"slower than torch (below {LOSS}x): {', '.join(losses) if losses else 'none'}")
    evidence, ceilings = result.evidence, result.ceilings
    peaks = ", ".join(f"{dtype} {peak / 1e9:.0f} GFLOP/s" for dtype, peak in ceilings.peak.items())
    console.print(f"measured ceilings: copy {ceilings.copy / 1e9:.1f} GB/s, matrix engines {peaks}")
    console.print(
        f"{evidence['device']}, {evidence['threads']} threads, torch {evidence['versions']['torch']}, {evidence['date']}"
    )
    for note in result.notes:
        console.print(note)


def table(result: Result) -> Table:
    peers = sorted({peer for row in result.rows for peer in row.ratio_vs_peers})
    overhead = any(row.extra_microseconds is not None for row in result.rows)
    grid = Table(title=f"accelops bench {result.suite}", caption="ratios: above 1 accelops is faster; [] quartiles")
    grid.add_column("problem", no_wrap=True)
    for name in ("direction", "ran", "torch ms", "accelops ms"):
        grid.add_column(name, justify="right" if name.endswith("ms") else "left", no_wrap=name != "ran")
    for name in ("vs torch", "vs torch's best", *(f"vs {peer}" for peer in peers), *(["extra us"] if overhead else ["% copy", "% matrix"])):  # fmt: skip
        grid.add_column(name, justify="right", no_wrap=True)
    for row in result.rows:
        last = [_figure(row.extra_microseconds, 2)] if overhead else [_figure(row.percent_of_copy_bandwidth), _figure(row.percent_of_matrix_peak)]  # fmt: skip
        grid.add_row(
            row.name + (f" x{row.multiplicity}" if row.multiplicity > 1 else ""),
            row.direction,
            what_ran(row),
            f"{row.milliseconds['torch']:.4g}",
            f"{row.milliseconds['accelops']:.4g}",
            _ratio(row.ratio_vs_torch, row.ratio_vs_torch_range),
            _ratio(row.ratio_vs_torch_best, row.ratio_vs_torch_best_range),
            *(_figure(row.ratio_vs_peers.get(peer), 2) for peer in peers),
            *last,
        )
    return grid


def what_ran(row: Row) -> str:
    """Kernels and where their Selections came from, most frequent first."""
    counts = Counter((line["kernel"], line["source"]) for line in row.ran)
    several = len(row.ran) > 2
    return ", ".join(
        (f"{count} " if several else "") + (kernel if kernel == source else f"{kernel} ({source})")
        for (kernel, source), count in counts.most_common()
    )


def _ratio(value: float, spread: tuple[float, float]) -> str:
    style = "red" if value < LOSS else "green" if value > 1 / LOSS else "default"
    return f"[{style}]{value:.2f}[/] [dim]\\[{spread[0]:.2f} {spread[1]:.2f}][/]"


def _figure(value: float | None, digits: int = 0) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def picture(result: Result, path: Path) -> None:
    """Write the roofline as a PNG: each row at its flops per byte and its speed, torch's best beside accelops' best.

    Raises ModuleNotFoundError without matplotlib, ValueError where no row has a Spec to place it by.
    """
    rows = [row for row in result.rows if row.flops_per_byte and row.percent_of_copy_bandwidth]
    if not rows:
        raise ValueError(f"the suite {result.suite} has no rows with flops and bytes to draw a roofline of")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 6), layout="constrained")
    axes = figure.subplots()
    intensities = [row.flops_per_byte for row in rows]
    span = [min(intensities) / 2, max(*intensities, 100) * 2]
    ceilings = result.ceilings
    for dtype, peak in ceilings.peak.items():
        ridge = peak / ceilings.copy
        corners = [span[0], min(max(ridge, span[0]), span[1]), span[1]]
        axes.plot(
            corners, [min(peak, x * ceilings.copy) / 1e9 for x in corners], label=f"{dtype}: {peak / 1e9:.0f} GFLOP/s"
        )
    speeds = [row.percent_of_copy_bandwidth / 100 * ceilings.copy * row.flops_per_byte / 1e9 for row in rows]
    torchs = [v * r.milliseconds[r.best["accelops"]] / r.milliseconds[r.best["torch"]] for v, r in zip(speeds, rows, strict=True)]  # fmt: skip
    axes.scatter(intensities, torchs, marker="x", color="tab:gray", label="torch, its best")
    axes.scatter(intensities, speeds, marker="o", color="tab:red", label="accelops, its best", alpha=0.7)
    for x, y, row in zip(intensities, speeds, rows, strict=True):
        axes.annotate(f"{row.name} {row.direction}", (x, y), fontsize=5, xytext=(2, 2), textcoords="offset points")
    axes.set(xscale="log", yscale="log", xlabel="flops per byte", ylabel="GFLOP/s", title=f"{result.suite} on {result.evidence['device']}, {result.evidence['threads']} threads")  # fmt: skip
    axes.legend()
    figure.savefig(path, dpi=150)
