"""The settings of a greeter's server."""

import socket
from typing import Annotated, Self

from pydantic import Field, model_validator

from greeting import address
from servicekit.settings import Delay, Port, ServiceSettings

ListenPort = Annotated[
    Port, Field(description="The port to listen on, on all addresses; 0 takes any free one.")
]
Greeting = Annotated[str, Field(description="How to greet.")]


class ServerSettings(ServiceSettings):
    """The settings of a greeter's server."""

    port: ListenPort
    greeting: Greeting
    drain_delay: Delay = Field(
        default=5,
        description="Seconds to keep serving, as NOT_SERVING, after SIGTERM, so that clients stop calling first.",
    )
    xds_server: bool = Field(
        default=False,
        description="Whether to ask the xDS server of the bootstrap how to serve: whether to encrypt, and whom to let in. "
        "The port is closed until it has answered.",
    )
    health_port: Port = Field(
        default=50080,
        description="With XDS_SERVER: the port of health checks, which need no certificate.",
    )
    fail_percent: int = Field(
        default=0,
        ge=0,
        le=100,
        description="For demos of retries and outlier detection: how many calls of a hundred fail with UNAVAILABLE.",
    )
    hostname: str = Field(
        default_factory=socket.gethostname, description="Host name in replies. Default: this machine's."
    )
    pod_ip: str = Field(
        default_factory=address.own_ip, description="IP address in replies. Default: this machine's."
    )

    @model_validator(mode="after")
    def _check_port(self) -> Self:
        if self.xds_server and self.port == 0:
            raise ValueError("XDS_SERVER needs a PORT: gRPC does not tell which free one it took")
        return self
