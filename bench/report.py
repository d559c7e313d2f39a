"""The results of a run: tables and charts, printed and, if requested, written into docs/."""

import platform
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure
from tqdm import tqdm

from tools.publish import publish, table

DOCS = Path(__file__).parents[1] / "docs"
COLOURS = ("#1f6f8b", "#c8702f", "#7a9e4e", "#8c6bb1", "#8a8a8a")
"""Distinguishable with colour blindness, on a white and on a black background."""


@dataclass
class Report:
    """Prints and publishes the results of one part.

    Attributes:
        part: The part's name.
        quick: Whether the run uses small sizes.
        publishing: Whether results are written into the documents.
    """

    part: str
    quick: bool
    publishing: bool
    _shown: dict[str, list[str]] = field(default_factory=dict)

    def steps(self, names: Sequence[str]) -> Iterator[str]:
        """Yields the steps of a part, and shows the current one in a progress bar."""
        with tqdm(names, unit="step", dynamic_ncols=True) as bar:
            for name in bar:
                bar.set_description(f"{self.part}: {name}")
                yield name

    def table(
        self,
        name: str,
        head: Sequence[str],
        rows: Sequence[Sequence[object]],
        *,
        document: str = "benchmarks",
    ) -> None:
        """Prints a table and writes it between the markers of this name in a document."""
        text = table(head, [[_short(cell) for cell in row] for row in rows])
        sys.stdout.write(f"\n{name}\n{text}\n\n")
        if self.publishing:
            publish(DOCS / f"{document}.md", name, f"{text}\n\n{self.origin()}")

    def bars(
        self,
        name: str,
        unit: str,
        groups: Sequence[str],
        series: Mapping[str, Sequence[float]],
        *,
        log: bool = False,
    ) -> None:
        """Draws a group of bars for each name in `groups`, with one bar for each series."""
        if not self.publishing:
            return
        figure = _figure()
        axes = figure.subplots()
        width = 0.8 / len(series)
        for number, (label, values) in enumerate(series.items()):
            places = [place + number * width for place in range(len(groups))]
            bars = axes.bar(places, values, width * 0.95, label=label, color=COLOURS[number % len(COLOURS)])
            axes.bar_label(bars, [_short(value) for value in values], fontsize=8)
        axes.set_xticks([place + 0.4 - width / 2 for place in range(len(groups))], groups)
        axes.set_ylabel(unit)
        if log:
            axes.set_yscale("log")
        _finish(figure, name)

    def stack(
        self, name: str, unit: str, groups: Sequence[str], series: Mapping[str, Sequence[float]]
    ) -> None:
        """Draws a stacked bar for each name in `groups`, with its sum above it."""
        if not self.publishing:
            return
        figure = _figure()
        axes = figure.subplots()
        tops = [0.0] * len(groups)
        for number, (label, values) in enumerate(series.items()):
            bars = axes.bar(
                groups, values, 0.6, bottom=tops, label=label, color=COLOURS[number % len(COLOURS)]
            )
            tops = [top + value for top, value in zip(tops, values, strict=True)]
        axes.bar_label(bars, [_short(top) for top in tops], fontsize=8)
        axes.set_ylabel(unit)
        _finish(figure, name)

    def lines(
        self,
        name: str,
        axis: tuple[str, str],
        series: Mapping[str, Sequence[tuple[float, float]]],
        *,
        log: str = "",
    ) -> None:
        """Draws a line for each series; `log` names the logarithmic axes, such as "xy"."""
        if not self.publishing:
            return
        figure = _figure()
        axes = figure.subplots()
        for number, (label, points) in enumerate(series.items()):
            across, up = zip(*points, strict=True)
            # Wider lines below narrower ones, so that overlapping lines stay visible.
            width = 1.5 + 0.7 * (len(series) - 1 - number)
            colour = COLOURS[number % len(COLOURS)]
            axes.plot(
                across, up, linewidth=width, marker="o", markersize=width + 1.5, label=label, color=colour
            )
        if "x" in log:
            axes.set_xscale("log", base=2)
            axes.xaxis.set_major_formatter("{x:.0f}")
        if "y" in log:
            axes.set_yscale("log")
        axes.set_xlabel(axis[0])
        axes.set_ylabel(axis[1])
        axes.grid(visible=True, alpha=0.3)
        _finish(figure, name)

    def origin(self) -> str:
        """Returns a line with the date, the command and the machine."""
        size = "a quick run, with fewer repetitions: " if self.quick else ""
        command = f"task bench:{self.part}{' -- --quick --publish' if self.quick else ''}"
        return f"*{time.strftime('%Y-%m-%d')}, {size}`{command}`; {machine()}.*"


def machine() -> str:
    """Returns the machine and the versions of the software, in one line."""
    info = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    processors = re.findall(r"^model name\s*: (.*)$", info, re.MULTILINE)
    memory = re.search(r"MemTotal: *(\d+) kB", Path("/proc/meminfo").read_text(encoding="ascii"))
    parts = [
        f"{len(processors)} x {processors[0] if processors else platform.machine()}",
        f"{int(memory[1]) / 2**20:.0f} GiB" if memory else "",
        f"Linux {platform.release()}",
        f"Python {platform.python_version()}",
        *(f"{package} {version(package)}" for package in ("grpcio", "protobuf")),
        *_go_versions(),
    ]
    return ", ".join(filter(None, parts))


def _go_versions() -> Iterator[str]:
    try:
        go = subprocess.run(["go", "version"], capture_output=True, text=True, check=True).stdout.split()
    except FileNotFoundError:
        return
    yield go[2].replace("go", "Go ", 1)
    module = (Path(__file__).parent / "go/go.mod").read_text(encoding="utf-8")
    for name in ("go-control-plane", "grpc"):
        found = re.search(rf"/{name} v(\S+)", module)
        if found:
            yield f"{'grpc-go' if name == 'grpc' else name} {found[1]}"


def _short(value: object) -> str:
    """Returns a figure with three significant digits."""
    if not isinstance(value, float):
        return f"{value:,}" if isinstance(value, int) else str(value)
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2  # noqa: PLR2004
    return f"{value:,.{digits}f}"


def _figure() -> Figure:
    return Figure(figsize=(8, 4), layout="constrained")


def _finish(figure: Figure, name: str) -> None:
    """Writes a chart; the same figures give the same bytes."""
    [axes] = figure.axes
    axes.spines[["top", "right"]].set_visible(False)
    if len(axes.get_legend_handles_labels()[1]) > 1:
        axes.legend(frameon=False)
    folder = DOCS / "charts"
    folder.mkdir(exist_ok=True)
    with mpl.rc_context({"svg.hashsalt": name}):
        figure.savefig(folder / f"{name}.svg", metadata={"Date": None}, facecolor="white")
