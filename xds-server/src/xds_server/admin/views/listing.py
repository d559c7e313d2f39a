"""Long lists: searched and paged here, so that a page of 10,000 services is as short as one of ten."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

PAGE_SIZE = 50

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """One page of a list.

    Attributes:
        items: What is on it.
        query: What was searched for.
        number: Of the page, from 1.
        pages: How many there are, at least one.
        found: How many items match.
        total: How many there are in all.
    """

    items: Sequence[T]
    query: str
    number: int
    pages: int
    found: int
    total: int


def page(items: Iterable[T], text: Callable[[T], str], query: str, number: int) -> Page[T]:
    """Returns a page of the items whose text has every word of the query.

    Args:
        items: All of them, in order.
        text: What is searched of an item.
        query: Words, separated by blanks; their case does not count.
        number: Of the page; one that does not exist is the nearest that does.
    """
    every = list(items)
    words = query.lower().split()
    found = [item for item in every if all(word in text(item).lower() for word in words)] if words else every
    pages = max(1, -(-len(found) // PAGE_SIZE))
    number = min(max(number, 1), pages)
    first = (number - 1) * PAGE_SIZE
    return Page(found[first : first + PAGE_SIZE], query, number, pages, len(found), len(every))
