"""The form of an explanation: plain data, which a command prints and a page shows."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Step:
    """One step on the way from a name to its endpoints.

    Attributes:
        title: What it is about.
        text: What was found, in one sentence.
        details: More of it, a line each.
        ok: Whether the way goes on, or requests can be served.
    """

    title: str
    text: str
    details: tuple[str, ...] = ()
    ok: bool = True


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a client gets what it gets.

    Attributes:
        name: What was asked for.
        client: Who is supposed to ask, in words.
        found: Whether some request to the name can be answered by an endpoint.
        steps: In order.
        nearest: Names that exist and are like the one asked for, if that does not exist.
    """

    name: str
    client: str
    found: bool
    steps: tuple[Step, ...]
    nearest: tuple[str, ...] = field(default=())
