"""Bounds on what a YAML file may cost."""

import pytest

from xds_server.errors import MalformedObjectError
from xds_server.files import parsing


@pytest.mark.parametrize(
    "text",
    [
        "[1, 2, 3, 4, 5]",
        "{a: 1, b: 2, c: 3}",
        "- 1\n- 2\n- 3\n- 4\n- 5\n",
        "1\n---\n2\n---\n3\n---\n4\n---\n5\n---\n6",
    ],
)
def test_a_file_may_have_so_many_values(text: str) -> None:
    parsing.check_bounds(text, max_nodes=7)
    with pytest.raises(MalformedObjectError, match="it has more than 4 values; split it into several files"):
        parsing.check_bounds(text, max_nodes=4)
