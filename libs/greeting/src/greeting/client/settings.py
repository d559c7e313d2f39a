"""The settings of a greeter's client. It must not import gRPC, which reads settings of its own at import."""

import re
from typing import Annotated, TypeAlias
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from servicekit.settings import Interval, ServiceSettings

Target = Annotated[
    str,
    Field(
        min_length=1, description="The target to call: xds:///SERVICE.NAMESPACE:PORT or another gRPC target."
    ),
]

Metadata: TypeAlias = tuple[tuple[str, tuple[str, ...]], ...]
"""Headers, each with the values that calls send in turn."""

# https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md#requests; text only
_HEADER = re.compile(r"(?!grpc-)(?![^=]*-bin=)([0-9a-z_.-]+)=([\x20-\x7e]+)")


class ClientSettings(ServiceSettings):
    """The settings of a greeter's client."""

    target: Target
    interval: Interval = Field(default=3, description="Seconds from one call to the next.")
    timeout: Interval = Field(default=5, description="Seconds that a call may take.")
    name: str = Field(default="gRPC Proxyless LB", description="The name to greet.")
    metadata: Metadata = Field(
        default=(),
        description="Headers to send, as NAME=VALUE,NAME=VALUE; with VALUE|VALUE|... calls send one after the other.",
    )
    concurrency: int = Field(default=1, ge=1, le=1000, description="How many calls to make at once.")

    @field_validator("target")
    @classmethod
    def _check_name(cls, target: str) -> str:
        if is_xds(target) and not urlsplit(target).path.strip("/"):
            raise ValueError(
                "must be xds:///SERVICE.NAMESPACE:PORT, with three slashes, or another gRPC target"
            )
        return target

    @field_validator("metadata", mode="before")
    @classmethod
    def _parse_metadata(cls, value: object) -> object:
        return parse_metadata(value) if isinstance(value, str) else value


def parse_metadata(text: str) -> Metadata:
    """Reads headers from a setting.

    Raises:
        ValueError: It is malformed, or names a header that gRPC does not send as it is.
    """
    found = [_HEADER.fullmatch(each.strip()) for each in text.split(",")]
    if not all(found):
        raise ValueError(
            "must be NAME=VALUE,NAME=VALUE with names in lower case that do not begin with grpc- or end with -bin"
        )
    return tuple((each[1], tuple(each[2].split("|"))) for each in found if each)


def is_xds(target: str) -> bool:
    """Returns whether a target is resolved by xDS, which needs a bootstrap."""
    return target.lower().startswith("xds:")
