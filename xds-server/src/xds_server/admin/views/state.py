"""The state of the server at one moment, as the views read it. Nothing in it is changed by anybody who looks."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from xds_server.ads.session import Session
from xds_server.lrs.loads import Edge, Rate
from xds_server.mesh.problems import Problem
from xds_server.mesh.statuses import Status
from xds_server.model.service import PortName
from xds_server.model.tables import Table
from xds_server.objects.kinds import Kind
from xds_server.objects.meta import Key


class ClientStream(NamedTuple):
    """One stream of a client.

    Attributes:
        number: Identifies it.
        peer: The client's address, as grpc spells it.
        session: What it subscribes to and was sent.
    """

    number: int
    peer: str
    session: Session


class Replica(NamedTuple):
    """Which xds-server this is.

    Attributes:
        name: Of the pod, or of the machine.
        namespace: Of the pod; empty outside of a cluster.
        replicas: How many there are, this one included; 0 if that is not known.
    """

    name: str
    namespace: str
    replicas: int


@dataclass(frozen=True, slots=True)
class State:
    """What the views are made of.

    Attributes:
        tables: The model.
        streams: The clients.
        statuses: What is to be said about routes and policies.
        problems: What can't be used.
        rates: Who calls whom.
        reports: Whether clients report what they call.
        subscribers: How many clients subscribe to the Cluster of a port.
        age: Seconds since the source last confirmed the state.
        replica: Which server this is.
    """

    tables: Mapping[Table[Any, Any], Mapping[Any, Any]]
    streams: Sequence[ClientStream]
    statuses: Sequence[tuple[Kind, Key, Status]]
    problems: Sequence[Problem]
    rates: Mapping[Edge, Rate]
    reports: bool
    subscribers: Callable[[PortName], int]
    age: float
    replica: Replica
