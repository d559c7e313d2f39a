"""The settings of a greeter's client. It must not import gRPC, which reads settings of its own at import."""

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from servicekit.settings import Interval, ServiceSettings

Target = Annotated[
    str,
    Field(
        min_length=1, description="The target to call: xds:///SERVICE.NAMESPACE:PORT or another gRPC target."
    ),
]


class ClientSettings(ServiceSettings):
    """The settings of a greeter's client."""

    target: Target
    interval: Interval = Field(default=3, description="Seconds from one call to the next.")
    timeout: Interval = Field(default=5, description="Seconds that a call may take.")
    name: str = Field(default="gRPC Proxyless LB", description="The name to greet.")

    @field_validator("target")
    @classmethod
    def _check_name(cls, target: str) -> str:
        if is_xds(target) and not urlsplit(target).path.strip("/"):
            raise ValueError(
                "must be xds:///SERVICE.NAMESPACE:PORT, with three slashes, or another gRPC target"
            )
        return target


def is_xds(target: str) -> bool:
    """Returns whether a target is resolved by xDS, which needs a bootstrap."""
    return target.lower().startswith("xds:")
