"""The picture in the documents: the times of operations, as bars."""

from collections.abc import Mapping
from pathlib import Path
from statistics import median

OURS, DRIVERS, OTHERS = "#2a6f97", "#adb5bd", "#e9a03b"


def draw(figures: Mapping[str, Mapping[str, list[float]]], path: Path) -> None:
    """Draw a panel for every operation, with a bar for every contender."""
    import matplotlib as mpl  # only needed here
    from matplotlib.figure import Figure

    # Keep text as text, and make the same file of the same figures.
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "benchmarks", "font.size": 8})
    columns = 2 if len(figures) > 1 else 1
    lines = -(-len(figures) // columns)
    figure = Figure(figsize=(9, 2.4 * lines), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False)
    for panel in axes.flat[len(figures) :]:
        panel.set_axis_off()
    for panel, (title, times) in zip(axes.flat, figures.items(), strict=False):
        names = list(times)[::-1]
        values = [median(times[name]) * 1e6 for name in names]
        bars = panel.barh(names, values, color=[colour_of(name) for name in names])
        panel.bar_label(bars, fmt="{:,.0f}", padding=3)
        panel.set_title(f"{title}, µs", loc="left", fontweight="bold")
        panel.spines[["top", "right", "bottom"]].set_visible(False)
        panel.margins(x=0.12)
        panel.set_xticks([])
    figure.savefig(path, format="svg", metadata={"Date": None})


def colour_of(name: str) -> str:
    if name.startswith("django-sessionkit"):
        return OURS
    return DRIVERS if name in ("psycopg 3", "redis-py") else OTHERS
