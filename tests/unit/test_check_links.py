"""Links that lead nowhere are found."""

from pathlib import Path

import pytest

from tools import check_links

PAGE = """\
# A title, with `code` & more

<a name="here"></a>

## Twice

## Twice

```console
$ echo [not a link](gone.md)
```
"""


@pytest.fixture
def page(tmp_path: Path) -> Path:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/page.md").write_text(PAGE)
    (tmp_path / "picture.svg").touch()
    return tmp_path / "docs/page.md"


@pytest.mark.parametrize(
    "link",
    [
        "https://example.com/a#b",
        "page.md",
        "#twice",
        "#twice-1",
        "#here",
        "#a-title-with-code--more",
        "../picture.svg",
        "../docs",
        "page.md#twice",
    ],
)
def test_a_link_that_leads_somewhere_is_fine(page: Path, link: str) -> None:
    page.write_text(f"{PAGE}\n[text]({link})\n")
    assert list(check_links.problems(page, page.parents[1])) == []


@pytest.mark.parametrize(
    ("link", "reason"),
    [
        ("gone.md", "no such file"),
        ("../picture.png", "no such file"),
        ("#twice-2", "no such heading"),
        ("page.md#gone", "no such heading"),
        ("http://example.com", "use https"),
        ("../../", "out of the repository"),
    ],
)
def test_a_link_that_leads_nowhere_is_found_with_its_line(page: Path, link: str, reason: str) -> None:
    page.write_text(f"{PAGE}\nText.\n\n![text]({link})\n")
    [(line, text)] = check_links.problems(page, page.parents[1])
    assert line == PAGE.count("\n") + 4
    assert text.startswith(f"{link}: ")
    assert reason in text
