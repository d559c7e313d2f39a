"""Writes the results of a run into a document, so that no figure in docs/ is typed by hand.

Two comments mark the place in a document; everything between them is replaced:

    <!-- begin interop: written by `task test:interop` -->
    <!-- end interop -->
"""

import re
from collections.abc import Sequence
from pathlib import Path


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Returns a Markdown table; escapes line breaks and bars in cells."""
    lines = [head, ["---"] * len(head), *rows]
    cells = [[re.sub(r"\s*\n\s*", " ", str(cell)).replace("|", "\\|") for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def publish(document: Path, name: str, text: str) -> None:
    """Replaces the text between the markers of `name` in `document`.

    Raises:
        ValueError: the document does not have exactly one pair of these markers.
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
