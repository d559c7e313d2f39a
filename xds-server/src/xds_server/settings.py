"""What can be set, by flag or by environment variable of the same name; nothing else in the package reads either."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from servicekit.settings import DAY, ServiceSettings

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
    discovery: Literal["kubernetes", "files"] = Field(
        "kubernetes",
        description="Where services come from. Kubernetes: KUBECONFIG, or the service account of the pod.",
    )
    discovery_dir: Path | None = Field(
        None, description="With files: a folder of YAML or JSON files that hold Services and EndpointSlices."
    )
    poll_interval: PollInterval = Field(
        60, description="Seconds from one complete look at everything to the next."
    )
    watch: bool = Field(
        default=True, description="Whether to follow changes between the polls, as they happen."
    )
    namespaces: tuple[str, ...] = Field(
        (), description="The only namespaces to look at, separated by commas."
    )
    max_connection_age: MaxConnectionAge = Field(
        1800,
        description="Seconds after which a client is asked to connect anew, so that replicas share the load.",
    )
    cluster_domain: str = Field(
        "cluster.local",
        pattern=r"^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$",
        description="The suffix of full service names.",
    )

    @field_validator("namespaces", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return (
            [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value
        )

    @model_validator(mode="after")
    def _check_directory(self) -> Self:
        if self.discovery == "files" and self.discovery_dir is None:
            raise ValueError("DISCOVERY=files needs DISCOVERY_DIR, a folder of YAML or JSON files")
        return self
