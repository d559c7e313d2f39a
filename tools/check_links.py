"""Checks the links of all Markdown files of the repository: each file, and each heading of it, that a link names must exist.

Links to other hosts are not followed, so that the check needs no network; they must use https. Prints each broken link as
FILE:LINE, and exits with 1 if there is any.
"""

import itertools
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parents[1]
_ID = re.compile(r"""<[^>]+\s(?:id|name)=["']([^"']+)["']""")
_parser = MarkdownIt("commonmark").enable("table")


def main() -> int:
    """Checks every Markdown file that git knows; returns the exit code."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    names = done.stdout.split("\n")
    files = [ROOT / name for name in names if name and (ROOT / name).exists()]
    broken = [
        f"{file.relative_to(ROOT)}:{line}: {text}" for file in files for line, text in problems(file, ROOT)
    ]
    print(*broken, sep="\n", file=sys.stderr)
    return bool(broken)


def problems(file: Path, root: Path) -> Iterator[tuple[int, str]]:
    """Yields the line and the reason of each broken link of a file in the folder `root`."""
    for line, link in links(file):
        if reason := why_broken(file, link, root):
            yield line, f"{link}: {reason}"


def links(file: Path) -> Iterator[tuple[int, str]]:
    """Yields the line and the target of each link and image of a file; the line is where its paragraph begins."""
    for block in _parser.parse(file.read_text()):
        for token in block.children or ():
            if target := token.attrGet("href") or token.attrGet("src"):
                yield (block.map or [0])[0] + 1, str(target)


def why_broken(file: Path, link: str, root: Path) -> str:
    """Why a link of a file leads nowhere; empty if it doesn't."""
    parts = urlsplit(link)
    if parts.scheme:
        return "" if parts.scheme in ("https", "mailto") else "use https"
    target = (file.parent / unquote(parts.path)).resolve() if parts.path else file
    if not target.exists():
        return "there is no such file"
    if not target.is_relative_to(root):
        return "it leads out of the repository"
    if parts.fragment and target.suffix == ".md" and unquote(parts.fragment) not in anchors(target):
        return f"{target.relative_to(root)} has no such heading"
    return ""


@cache
def anchors(file: Path) -> frozenset[str]:
    """The fragments of a Markdown file: those that GitHub makes of headings, and those of HTML."""
    found: Counter[str] = Counter()
    text = file.read_text()
    names = set(_ID.findall(text))
    tokens = _parser.parse(text)
    for opening, inline in itertools.pairwise(tokens):
        if opening.type == "heading_open":
            slug = re.sub(r"[^\w\- ]", "", _plain(inline).lower()).replace(" ", "-")
            names.add(f"{slug}-{found[slug]}" if found[slug] else slug)
            found[slug] += 1
    return frozenset(names)


def _plain(inline: Token) -> str:
    """The text of a heading, without its markup."""
    return "".join(token.content for token in inline.children or () if token.type in ("text", "code_inline"))


if __name__ == "__main__":
    sys.exit(main())
