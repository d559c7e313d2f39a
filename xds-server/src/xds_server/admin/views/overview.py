"""The first page: how much there is, whether all is well, and what is not."""

from dataclasses import dataclass

from xds_server.admin.views import traffic
from xds_server.admin.views.clients import ClientRow, clients
from xds_server.admin.views.rates import by_port, total
from xds_server.admin.views.state import State
from xds_server.admin.views.traffic import ObjectRow
from xds_server.lrs.loads import Rate
from xds_server.mesh.problems import Problem
from xds_server.model.service import PortName
from xds_server.model.tables import ENDPOINTS, SERVICES

MAX_ROWS = 10


@dataclass(frozen=True, slots=True)
class Overview:
    """The first page.

    Attributes:
        services: How many there are.
        endpoints: How many there are, counted once for each port.
        streams: How many streams of clients are open.
        objects: How many routes and policies are judged.
        rate: Of everything.
        busiest: The ports with most requests.
        rejecting: Clients that rejected something; the first ones.
        rejections: How many clients did.
        bad: Routes and policies with which something is wrong; the first ones.
        problems: What can't be used; the first ones.
        problem_count: How many problems there are.
    """

    services: int
    endpoints: int
    streams: int
    objects: int
    rate: Rate
    busiest: tuple[tuple[PortName, Rate], ...]
    rejecting: tuple[ClientRow, ...]
    rejections: int
    bad: tuple[ObjectRow, ...]
    problems: tuple[Problem, ...]
    problem_count: int


def overview(state: State) -> Overview:
    """The first page."""
    rejections = sum(stream.session.has_rejections for stream in state.streams)
    first = clients(state, "", 1).items if rejections else ()
    bad = [row for row in traffic.objects(state) if not row.good]
    stated = {(row.kind, row.namespace, row.name) for row in bad}
    problems = [problem for problem in state.problems if (problem.kind, *problem.key) not in stated]
    busiest = sorted(by_port(state.rates).items(), key=lambda each: -each[1].requests)
    return Overview(
        services=len(state.tables[SERVICES]),
        endpoints=sum(map(len, state.tables[ENDPOINTS].values())),
        streams=len(state.streams),
        objects=len(state.statuses),
        rate=total(state.rates.values()),
        busiest=tuple(busiest[:MAX_ROWS]),
        rejecting=tuple(row for row in first if row.rejected)[:MAX_ROWS],
        rejections=rejections,
        bad=tuple(bad[:MAX_ROWS]),
        problems=tuple(problems[:MAX_ROWS]),
        problem_count=len(problems) + len(bad),
    )
