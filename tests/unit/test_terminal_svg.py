"""The animated picture of terminals."""

import re
import xml.etree.ElementTree as ET

from tools.record_demo import shorten
from tools.terminal_svg import COLUMNS, HOLD, LINE_HEIGHT, Line, Terminal, draw

SVG = "{http://www.w3.org/2000/svg}"


def texts(svg: str) -> list[str]:
    """The text of each line, titles included."""
    return ["".join(found.itertext()) for found in ET.fromstring(svg).iter(f"{SVG}text")]  # noqa: S314 - our own


def steps(svg: str, terminal: int = 0) -> dict[float, int]:
    """By time in percent, by how many lines the lines of a terminal have moved up."""
    [frames] = re.findall(rf"@keyframes k{terminal}{{((?:[0-9.]+%{{[^}}]*}})*)}}", svg)
    found = re.findall(r"([0-9.]+)%\{transform:translateY\(-([0-9]+)px\)\}", frames)
    return {float(percent): int(pixels) // LINE_HEIGHT for percent, pixels in found}


def test_each_line_is_there_once_and_nothing_in_it_is_markup() -> None:
    lines = [Line(0, "$ echo <b>"), Line(1, "<b>&amp;"), Line(2, "x" * 200)]
    title, *found = texts(draw([Terminal("A & B", 5, lines)]))
    assert title == "A & B"
    assert found == ["$ echo <b>", "<b>&amp;", "x" * (COLUMNS - 1) + "…"]


def test_lines_move_up_when_they_arrive() -> None:
    svg = draw([Terminal("A", 5, [Line(0, "a"), Line(5, "b"), Line(5, "c"), Line(10, "d")])])
    seconds = 10 + HOLD
    assert steps(svg) == {0: 1, round(500 / seconds, 2): 3, round(1000 / seconds, 2): 4, 100: 4}


def test_terminals_share_one_clock() -> None:
    svg = draw([Terminal("A", 5, [Line(0, "a")]), Terminal("B", 5, [Line(10, "b")])])
    assert steps(svg, 0) == {0: 1, 100: 1}
    assert steps(svg, 1) == {0: 0, round(1000 / (10 + HOLD), 2): 1, 100: 1}


def test_hosts_have_colours_of_their_own() -> None:
    svg = draw([Terminal("A", 5, [Line(0, "from web-1"), Line(0, "from web-12")], hosts=["web-1", "web-12"])])
    assert re.findall(r'class="h([0-9])">([^<]*)<', svg) == [("0", "web-1"), ("1", "web-12")]


def test_it_is_readable_in_light_and_dark_and_stands_still_where_motion_is_not_wanted() -> None:
    svg = draw([Terminal("A", 5, [])])
    assert "prefers-color-scheme:dark" in svg
    assert "prefers-reduced-motion" in svg


def test_only_pauses_of_all_terminals_are_shortened() -> None:
    first, second = [Line(100, "a"), Line(130, "b")], [Line(110, "c"), Line(110.5, "d")]
    assert shorten([first, second], 1) == [
        [Line(0, "a"), Line(2.5, "b")],
        [Line(1, "c"), Line(1.5, "d")],
    ]
    assert shorten([[], []], 1) == [[], []]
