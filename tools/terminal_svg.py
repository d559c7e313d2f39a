"""Draws what two terminals showed as an animated SVG, which plays in a README. Pure.

Each terminal is one column of lines behind a window. When a line arrives, the column moves up by one line, so that the
line appears at the bottom: each line is in the file once, whatever the length of the animation.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

COLUMNS = 116
LINE_HEIGHT = 18
CHARACTER_WIDTH = 7.8
MARGIN = 14
TITLE_HEIGHT = 26
HOLD = 5.0
"""Seconds for which the last lines stay, before the animation begins again."""

STYLE = """\
.b{fill:#ffffff;stroke:#d0d7de}.t{fill:#f6f8fa}text{font:13px ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;fill:#1f2328;white-space:pre}
.d{fill:#59636e}.p{fill:#0550ae;font-weight:600}
.h0{fill:#0969da}.h1{fill:#bc4c00}.h2{fill:#1a7f37}.h3{fill:#8250df}.h4{fill:#bf3989}.h5{fill:#9a6700}
@media(prefers-color-scheme:dark){.b{fill:#0d1117;stroke:#30363d}.t{fill:#161b22}text{fill:#e6edf3}
.d{fill:#9198a1}.p{fill:#79c0ff}.h0{fill:#58a6ff}.h1{fill:#ffa657}.h2{fill:#56d364}.h3{fill:#d2a8ff}.h4{fill:#ff9bce}.h5{fill:#e3b341}}
@media(prefers-reduced-motion:reduce){g{animation-duration:1ms!important;animation-iteration-count:1!important}}
"""
"""Each colour has a contrast of at least 4.5 to its background."""
HOST_COLOURS = 6


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a terminal.

    Attributes:
        at: When it arrived, in seconds from the beginning.
        text: Without control characters.
    """

    at: float
    text: str


@dataclass(frozen=True, slots=True)
class Terminal:
    """A window and the lines that appeared in it, in order.

    Attributes:
        title: Above the window.
        rows: Its height in lines.
        lines: What appeared.
        hosts: Words that are coloured, each in its own colour as far as there are enough.
    """

    title: str
    rows: int
    lines: Sequence[Line]
    hosts: Sequence[str] = ()


def draw(terminals: Sequence[Terminal]) -> str:
    """The SVG of terminals, one above the other."""
    seconds = max((line.at for terminal in terminals for line in terminal.lines), default=0.0) + HOLD
    width = round(COLUMNS * CHARACTER_WIDTH) + 2 * MARGIN
    parts: list[str] = []
    styles = [STYLE]
    top = 1
    for index, terminal in enumerate(terminals):
        height = TITLE_HEIGHT + terminal.rows * LINE_HEIGHT + MARGIN
        styles.append(_keyframes(index, terminal, seconds))
        parts.append(_window(index, terminal, top=top, width=width, height=height))
        top += height + MARGIN
    titles = escape("; ".join(terminal.title for terminal in terminals))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width + 2} {top}" role="img" aria-label="{titles}">\n'
        f"<style>{''.join(styles)}</style>\n{''.join(parts)}</svg>\n"
    )


def _window(index: int, terminal: Terminal, *, top: int, width: int, height: int) -> str:
    """One window with its lines, of which the first one begins below the window."""
    inner = terminal.rows * LINE_HEIGHT
    rows = "".join(
        f'<text x="{MARGIN}" y="{inner + number * LINE_HEIGHT + 13}">{_coloured(line.text, terminal.hosts)}</text>\n'
        for number, line in enumerate(terminal.lines)
    )
    return (
        f'<rect class="b" x="1" y="{top}" width="{width}" height="{height}" rx="6"/>'
        f'<path class="t" d="M2 {top + TITLE_HEIGHT}v-19a6 6 0 0 1 6-6h{width - 14}a6 6 0 0 1 6 6v19z"/>'
        f'<text class="d" x="{MARGIN}" y="{top + 18}">{escape(terminal.title)}</text>\n'
        f'<svg x="1" y="{top + TITLE_HEIGHT + 6}" width="{width}" height="{inner}"><g class="a{index}">\n{rows}</g></svg>\n'
    )


def _keyframes(index: int, terminal: Terminal, seconds: float) -> str:
    """Moves the lines of a window up by one line whenever a line arrives; lines that arrive together move together."""
    arrived: dict[str, int] = {"0": 0}
    for number, line in enumerate(terminal.lines, 1):
        arrived[f"{100 * line.at / seconds:.2f}".rstrip("0").rstrip(".") or "0"] = number
    last = len(terminal.lines)
    frames = "".join(
        f"{percent}%{{transform:translateY(-{number * LINE_HEIGHT}px)}}"
        for percent, number in arrived.items()
    )
    return (
        f".a{index}{{animation:k{index} {seconds:.1f}s step-end infinite}}"
        f"@keyframes k{index}{{{frames}100%{{transform:translateY(-{last * LINE_HEIGHT}px)}}}}\n"
    )


def _coloured(text: str, hosts: Sequence[str]) -> str:
    """A line as SVG, cut to the width of a window: commands and hosts are coloured."""
    cut = text if len(text) <= COLUMNS else f"{text[: COLUMNS - 1]}…"
    if cut.startswith("$ "):
        return f'<tspan class="p">{escape(cut)}</tspan>'
    # Longer names first: one may begin with another.
    for host in sorted(hosts, key=len, reverse=True):
        before, found, after = cut.partition(host)
        if found:
            colour = hosts.index(host) % HOST_COLOURS
            return f'{escape(before)}<tspan class="h{colour}">{escape(found)}</tspan>{escape(after)}'
    return escape(cut)
