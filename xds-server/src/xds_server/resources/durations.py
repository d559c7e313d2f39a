"""Durations of the model, in seconds, as protobuf."""

from google.protobuf import duration_pb2

_NANOS = 1_000_000_000


def duration(seconds: float) -> duration_pb2.Duration:
    """The duration, exact to the nanosecond."""
    whole, nanos = divmod(round(seconds * _NANOS), _NANOS)
    return duration_pb2.Duration(seconds=whole, nanos=nanos)
