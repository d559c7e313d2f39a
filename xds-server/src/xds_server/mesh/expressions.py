"""Which regular expressions may be sent to clients: those that every gRPC client accepts. Pure.

An expression that a client refuses makes Go, Java and Python refuse all routes of the service, and ends a Node process;
the Kubernetes API checks none. All clients use the syntax of RE2, in versions and ports of different age (RE2 itself,
Go's ``regexp``, re2j, re2-wasm), so what only some of them know is refused here too.

https://github.com/google/re2/wiki/Syntax
"""

import functools
import re

import re2

MAX_LENGTH = 5000
"""Characters of one expression. The definition of GRPCRoute allows 4096 in the value of a header."""

_options = re2.Options()
_options.log_errors = False
_options.never_capture = True
_options.max_mem = 1 << 18
"""Bytes, of which the compiled program may have a part. It bounds the time that one expression takes to compile to
some 10 ms, and is far below the 8 MiB that clients allow. 4096 literal characters fit."""

_ESCAPE = re.compile(r"\\(.)", re.DOTALL)


@functools.lru_cache(maxsize=1024)
def refusal(expression: str) -> str | None:
    """Returns why some client would refuse an expression; None if all accept it."""
    if len(expression) > MAX_LENGTH:
        return f"the expression has {len(expression)} characters; at most {MAX_LENGTH} are allowed"
    if not (expression.isascii() and expression.isprintable()):
        return "the expression has characters other than printable ASCII, which no path or header has"
    for escape in _ESCAPE.findall(expression):
        if escape in "CpP":
            return f"\\{escape} is not supported alike by all gRPC clients"
    if "(?<" in expression:
        return "(?< is not supported by all gRPC clients; use (?: or (?P<name>"
    try:
        re2.compile(expression, _options)
    except re2.error as error:
        return f"RE2 refuses the expression: {_text(error)}"
    return None


def grouped(expression: str) -> str:
    """Returns an expression as one group, which stays whole wherever it is put.

    Node's client puts ``^`` and ``$`` around what it is sent, which would tear ``a|b`` apart.
    """
    return f"(?:{expression})"


def _text(error: Exception) -> str:
    """The text of an error of RE2, which comes as bytes."""
    detail = error.args[0] if error.args else ""
    return detail.decode(errors="replace") if isinstance(detail, bytes) else str(detail)
