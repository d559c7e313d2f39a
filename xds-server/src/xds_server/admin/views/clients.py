"""Clients: the list, and one with everything that it has."""

from collections import Counter
from dataclasses import dataclass

from xds_server.admin.views.listing import Page, page
from xds_server.admin.views.state import ClientStream, State
from xds_server.ads.session import ResourceStatus, Status


@dataclass(frozen=True, slots=True)
class ClientRow:
    """One stream. A process has one for each of its targets.

    Attributes:
        number: Of the stream.
        node: What the client calls itself.
        namespace: Of the client.
        zone: Of the client; empty if unknown.
        library: Its gRPC library.
        peer: Its address.
        acknowledged: Resources that it has.
        sent: Resources that it has not answered yet.
        rejected: Resources that it rejected.
        missing: Names that do not exist.
    """

    number: int
    node: str
    namespace: str
    zone: str
    library: str
    peer: str
    acknowledged: int
    sent: int
    rejected: int
    missing: int


@dataclass(frozen=True, slots=True)
class ResourceRow:
    """One resource of a client.

    Attributes:
        type: Such as CDS.
        name: As the client spells it.
        status: A word.
        version: What was sent last; empty if nothing was.
        reason: Why the client rejected it, in its own words; empty if it did not.
    """

    type: str
    name: str
    status: str
    version: str
    reason: str


@dataclass(frozen=True, slots=True)
class ClientDetails:
    """One stream with its resources."""

    row: ClientRow
    kubernetes_node: str
    resources: tuple[ResourceRow, ...]


def clients(state: State, query: str, number: int) -> Page[ClientRow]:
    """The list; those that rejected something come first. Only what is on the page is looked at closely."""
    ordered = sorted(
        state.streams,
        key=lambda each: (
            not each.session.has_rejections,
            each.session.client.namespace,
            each.session.node.id,
        ),
    )
    found = page(ordered, _text, query, number)
    rows = [_row(each, Counter(one.status for one in each.session.statuses())) for each in found.items]
    return Page(rows, found.query, found.number, found.pages, found.found, found.total)


def _text(stream: ClientStream) -> str:
    client = stream.session.client
    return f"{stream.session.node.id} {client.namespace} {client.zone} {stream.session.node.user_agent} {stream.peer}"


def client(state: State, number: int) -> ClientDetails | None:
    """One stream; None if it has ended."""
    stream = next((each for each in state.streams if each.number == number), None)
    if stream is None:
        return None
    statuses = list(stream.session.statuses())
    row = _row(stream, Counter(each.status for each in statuses))
    resources = sorted(map(_resource, statuses), key=lambda each: (not each.reason, each.type, each.name))
    return ClientDetails(row, stream.session.client.node, tuple(resources))


def _row(stream: ClientStream, counts: Counter[Status]) -> ClientRow:
    node, found = stream.session.node, stream.session.client
    return ClientRow(
        stream.number,
        node.id,
        found.namespace,
        found.zone,
        node.user_agent,
        stream.peer,
        counts[Status.ACKNOWLEDGED],
        counts[Status.SENT],
        counts[Status.REJECTED],
        counts[Status.MISSING],
    )


def _resource(status: ResourceStatus) -> ResourceRow:
    return ResourceRow(
        status.type.label,
        status.name,
        status.status.value,
        status.resource.version if status.resource else "",
        status.rejection.message if status.rejection else "",
    )
