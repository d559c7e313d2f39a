"""Durations as texts."""

import pytest

from xds_server.mesh.durations import parse


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("10s", 10),
        ("1m30s", 90),
        ("250ms", 0.25),
        ("0s", 0),
        ("1h", 3600),
        ("1h1m1s1ms", 3661.001),
        ("1ms", 0.001),
        ("1m1ms", 60.001),
        ("1s1h", 3601),
        ("99999h", 359_996_400),
    ],
)
def test_the_seconds_of_a_duration(text, seconds):
    assert parse(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        "",
        "10",
        "s",
        "-1s",
        "1.5s",
        "1d",
        "1us",
        "1S",
        " 1s",
        "1s\n",
        "1 s",
        "100000ms",
        "1s1s1s1s1s",
        "1ss",
        "\u0665s",
    ],
)
def test_what_is_no_duration(text):
    with pytest.raises(ValueError, match="is not a duration such as 10s"):
        parse(text)
