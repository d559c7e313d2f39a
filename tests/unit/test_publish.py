"""Tests of tools/publish.py."""

from pathlib import Path

import pytest

from tools.publish import publish, table

DOCUMENT = """# A page

<!-- begin figures: written by `task figures` -->
old
<!-- end figures -->

<!-- begin others: written by `task others` -->
kept
<!-- end others -->
"""


def test_table_escapes_line_breaks_and_bars() -> None:
    assert table(["a", "b"], [[1, "x | y"], ["two\nlines", ""]]) == (
        "| a | b |\n| --- | --- |\n| 1 | x \\| y |\n| two lines |  |"
    )


def test_only_the_text_between_the_markers_is_replaced(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(DOCUMENT)
    publish(page, "figures", "new \\1")
    publish(page, "figures", "newer \\1")
    assert page.read_text() == DOCUMENT.replace("\nold\n", "\n\nnewer \\1\n\n")


@pytest.mark.parametrize("text", ["", DOCUMENT + DOCUMENT])
def test_a_document_without_exactly_one_pair_of_markers_is_refused(tmp_path: Path, text: str) -> None:
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises(ValueError, match="places marked 'figures'"):
        publish(page, "figures", "new")
    assert page.read_text() == text
