"""The settings of xds-server, by flag or environment variable; no other module of the package reads either."""

import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from servicekit.settings import DAY, AddressOrOff, ListenAddress, ServiceSettings

PollInterval = Annotated[float, Field(ge=1, le=DAY, allow_inf_nan=False)]
"""Seconds."""

MaxConnectionAge = Annotated[float, Field(ge=1, le=7 * DAY, allow_inf_nan=False)]
"""Seconds."""


LoadReportInterval = Annotated[float, Field(ge=1, le=3600, allow_inf_nan=False)]
"""Seconds."""

_DOMAIN = re.compile(r"[a-z0-9]([-.a-z0-9]*[a-z0-9])?")


class Settings(ServiceSettings):
    """Serves xDS for the Kubernetes Services until SIGTERM or SIGINT."""

    listen: AddressOrOff = Field(
        "[::]:18000", description="Where xDS clients connect without encryption. Empty: off."
    )
    tls_listen: ListenAddress = Field(
        "[::]:18001", description="Where xDS clients connect with TLS, if TLS_CERT_FILE is set."
    )
    tls_cert_file: Path | None = Field(
        None, description="The server's certificate with its chain, PEM. Read again when it changes."
    )
    tls_key_file: Path | None = Field(None, description="The key of TLS_CERT_FILE, PEM.")
    tls_client_ca_file: Path | None = Field(
        None,
        description="The authorities of clients, PEM. With it, clients that connect with TLS need a certificate, which "
        "says who they are: spiffe://TRUST_DOMAIN/ns/NAMESPACE/sa/ACCOUNT.",
    )
    trust_domain: str = Field("cluster.local", description="The trust domain of clients' SPIFFE ids.")
    allowed_clients: tuple[str, ...] = Field(
        (),
        description="Patterns of SPIFFE ids, separated by commas, of the clients that may connect with a certificate, "
        "like spiffe://cluster.local/ns/shop/sa/*; empty: all of TRUST_DOMAIN.",
    )
    admin_listen: ListenAddress = Field(
        "[::]:18080", description="Where health, metrics and debug pages are served over HTTP."
    )
    admin_hosts: tuple[str, ...] = Field(
        (),
        description="Names by which browsers may reach the admin pages, separated by commas, beside IP addresses, "
        "localhost and names of Services.",
    )
    pod_name: str = Field("", description="The name of this pod, for people.")
    pod_namespace: str = Field("", description="The namespace of this pod, to find the other replicas.")
    debug_listen: AddressOrOff = Field(
        "127.0.0.1:18081",
        description="Where CSDS and gRPC reflection answer. The default is reachable only inside the pod (use "
        "port-forward). Empty: off.",
    )
    rpc_transport: Literal["auto", "events", "threads"] = Field(
        "auto",
        description="events: no thread per stream, but uses private gRPC APIs; threads: public API, two threads per "
        "stream; auto: events if its self-test passes.",
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
    load_reports: bool = Field(
        default=True, description="Whether clients report how many requests they send to which service."
    )
    load_report_interval: LoadReportInterval = Field(5, description="Seconds from one report to the next.")
    cluster_domain: str = Field(
        "cluster.local",
        description="The suffix of full service names.",
    )

    @field_validator("namespaces", "allowed_clients", "admin_hosts", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        """Splits a text at its commas; leaves out empty parts and duplicates."""
        if not isinstance(value, str):
            return value
        parts = (part.strip() for part in value.split(","))
        return tuple(dict.fromkeys(part for part in parts if part))

    @field_validator("discovery_dir", "tls_cert_file", "tls_key_file", "tls_client_ca_file", mode="before")
    @classmethod
    def _none_if_empty(cls, value: object) -> object:
        """Reads an empty text as none: it would be the current folder."""
        return value or None

    @field_validator("cluster_domain")
    @classmethod
    def _check_cluster_domain(cls, value: str) -> str:
        if not _DOMAIN.fullmatch(value):
            raise ValueError("must be a DNS domain in lower case without a final dot, like cluster.local")
        return value

    @model_validator(mode="after")
    def _check_directory(self) -> Self:
        if self.discovery == "files" and self.discovery_dir is None:
            raise ValueError("DISCOVERY=files needs DISCOVERY_DIR, a folder of YAML or JSON files")
        return self

    @model_validator(mode="after")
    def _check_tls(self) -> Self:
        if (self.tls_cert_file is None) != (self.tls_key_file is None):
            raise ValueError("TLS_CERT_FILE and TLS_KEY_FILE are needed together")
        if self.tls_cert_file is None and self.tls_client_ca_file is not None:
            raise ValueError("TLS_CLIENT_CA_FILE needs TLS_CERT_FILE and TLS_KEY_FILE")
        if self.allowed_clients and self.tls_client_ca_file is None:
            raise ValueError(
                "ALLOWED_CLIENTS needs TLS_CLIENT_CA_FILE: only a certificate says who a client is"
            )
        if not self.listen and self.tls_cert_file is None:
            raise ValueError(
                "without LISTEN, clients can only connect with TLS: set TLS_CERT_FILE and TLS_KEY_FILE"
            )
        return self
