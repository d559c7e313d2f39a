"""What the rules of all routes of one port together may cost the clients that are sent them. Pure.

A client gets the rules of a port in one message, a RouteConfiguration. Each route has bounds of its own, but any number
of routes may be attached to one port. Two things end there:

- Node's client has 16 MiB for all expressions that the process ever compiles, and aborts when they are used up: re2-wasm
  never frees memory, and each change of the routes compiles all of them again (twice if it names new clusters, see
  ``resources/introduction.py``). Measured with 1.0.2 and 17 kinds of expressions, one that has been matched a few times
  takes up to 100 bytes an instruction, and 5 KiB. So MAX_INSTRUCTIONS is at most 400 KiB for each change: a process
  stands forty changes of the largest routes, and most routes have few expressions or none.
- Java's client reads messages of 4 MiB at most. A message may hold the routes of several ports, and the first step of a
  change the clusters of two forms of a route, hence MAX_BYTES is a quarter.
"""

from collections.abc import Iterable
from typing import NamedTuple

from xds_server.mesh import expressions
from xds_server.model.traffic import PathType, Rule

MAX_INSTRUCTIONS = 4_000
"""Of RE2, for all expressions of one port."""
EXPRESSION_INSTRUCTIONS = 50
"""What an expression takes besides its own instructions."""

MAX_BYTES = 1024 * 1024
"""Of the rules of one port. It bounds their number too, to about a thousand."""
RULE_BYTES = 1024
"""What a rule takes at most besides its texts: with its policies, of which the header to hash has up to 256 bytes."""
PART_BYTES = 32
"""What a header or a backend takes besides its texts."""


class Cost(NamedTuple):
    """What rules cost.

    Attributes:
        instructions: Of RE2, with what each expression takes besides them.
        bytes: Of the rules as they are sent; never less than they really are.
    """

    instructions: int = 0
    bytes: int = 0

    def plus(self, other: "Cost") -> "Cost":
        """The sum of both."""
        return Cost(self.instructions + other.instructions, self.bytes + other.bytes)


def cost(rules: Iterable[Rule]) -> Cost:
    """Returns what rules cost together."""
    total = Cost()
    for rule in rules:
        path, headers = rule.match
        patterns = [header.value for header in headers if header.is_regex]
        if path.type is PathType.REGEX:
            patterns.append(path.value)
        texts = sum(PART_BYTES + len(header.name) + len(header.value) for header in headers)
        texts += sum(PART_BYTES + len(str(backend.target)) for backend in rule.backends)
        total = total.plus(
            Cost(
                sum(EXPRESSION_INSTRUCTIONS + expressions.instructions(pattern) for pattern in patterns),
                RULE_BYTES + len(path.value) + texts,
            )
        )
    return total


def excess(used: Cost, more: Cost) -> str:
    """Returns why the rules of one more route do not fit beside those of older ones; empty if they do.

    The text does not say how much is used: the status of a route would change with every change of an older one.
    """
    if used.instructions + more.instructions > MAX_INSTRUCTIONS:
        return (
            f"its regular expressions take {more.instructions} instructions of RE2, and older routes leave less of the "
            f"{MAX_INSTRUCTIONS} that one port may have; use shorter expressions, or exact names and values"
        )
    if used.bytes + more.bytes > MAX_BYTES:
        return (
            f"its rules take up to {more.bytes} bytes, and older routes leave less of the {MAX_BYTES} that one port may "
            "have; use fewer matches, headers or backends"
        )
    return ""
