"""The settings of xds-server, by flag or environment variable; no other module of the package reads either."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from servicekit.settings import DAY, AddressOrOff, ServiceSettings

PollInterval = Annotated[float, Field(ge=1, le=DAY, allow_inf_nan=False)]
"""Seconds."""

MaxConnectionAge = Annotated[float, Field(ge=1, le=7 * DAY, allow_inf_nan=False)]
"""Seconds."""


class Settings(ServiceSettings):
    """Serve xDS: gRPC clients balance their requests over the pods of every Kubernetes Service."""

    listen: str = Field("[::]:18000", description="Where xDS clients connect.")
    admin_listen: str = Field(
        "[::]:18080", description="Where health, metrics and debug pages are served over HTTP."
    )
    debug_listen: AddressOrOff = Field(
        "127.0.0.1:18081",
        description="Where CSDS and gRPC reflection answer; reachable by port-forward alone. Empty: nowhere.",
    )
    rpc_transport: Literal["auto", "events", "threads"] = Field(
        "auto",
        description="How streams are served: events needs no thread for a stream but inner parts of gRPC, threads "
        "needs its public API alone; auto chooses by a self-test at the start.",
    )
    discovery: Literal["kubernetes", "files"] = Field(
        "kubernetes",
        description="Where services come from. Kubernetes: KUBECONFIG, or the service account of the pod.",
    )
    discovery_dir: Path | None = Field(
        None, description="With files: a folder of YAML or JSON files that hold Services and EndpointSlices."
    )
    poll_interval: PollInterval = Field(
        60, description="Seconds from one complete list of all objects to the next."
    )
    watch: bool = Field(
        default=True, description="Whether to follow changes between the polls, as they happen."
    )
    namespaces: tuple[str, ...] = Field(
        (), description="The only namespaces to read, separated by commas; empty: all."
    )
    max_connection_age: MaxConnectionAge = Field(
        1800,
        description="Seconds after which a client is asked to reconnect, so that replicas share the load.",
    )
    cluster_domain: str = Field(
        "cluster.local",
        pattern=r"^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$",
        description="The suffix of full service names.",
    )

    @field_validator("namespaces", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        """Splits a text at its commas; leaves out empty parts and duplicates."""
        if not isinstance(value, str):
            return value
        parts = (part.strip() for part in value.split(","))
        return tuple(dict.fromkeys(part for part in parts if part))

    @model_validator(mode="after")
    def _check_directory(self) -> Self:
        if self.discovery == "files" and self.discovery_dir is None:
            raise ValueError("DISCOVERY=files needs DISCOVERY_DIR, a folder of YAML or JSON files")
        return self
