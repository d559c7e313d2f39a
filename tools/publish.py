"""Puts what a run measured into a document, so that no figure in docs/ is typed by hand.

A document marks the place with two comment lines; what stands between them belongs to the run:

    <!-- begin interop: written by `task test:interop` -->
    <!-- end interop -->
"""

import re
from collections.abc import Sequence
from pathlib import Path


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table; a cell's line breaks and bars don't break it."""
    lines = [head, ["---"] * len(head), *rows]
    cells = [[re.sub(r"\s*\n\s*", " ", str(cell)).replace("|", "\\|") for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def publish(document: Path, name: str, text: str) -> None:
    """Replaces what stands between the marks of `name` in `document`.

    Raises:
        ValueError: if the document has no such marks, or more than one pair of them.
    """
    marks = re.compile(
        rf"(<!-- begin {re.escape(name)}:[^\n]*-->\n).*?(<!-- end {re.escape(name)} -->)", re.DOTALL
    )
    written, count = marks.subn(
        lambda found: f"{found[1]}\n{text.strip()}\n\n{found[2]}", document.read_text(encoding="utf-8")
    )
    if count != 1:
        raise ValueError(f"{document} has {count} places marked {name!r}; there must be one")
    document.write_text(written, encoding="utf-8")
