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
MAX_PROGRAM = 1000
"""Instructions of a compiled expression: one a literal character, eight a dot. Node's client (re2-wasm) has 16 MiB for
all expressions that a process ever compiles, of which 1000 instructions take up to 100 KiB, and aborts when they are
used up."""

_options = re2.Options()
_options.log_errors = False
_options.max_mem = 1 << 17
"""Bytes. It ends a compilation that would take long, well above MAX_PROGRAM."""

_UNPORTABLE = {
    r"\C": r"\C is not supported by Go and Java",
    r"\p": r"\p means other characters in each client",
    r"\P": r"\P means other characters in each client",
    "(?<": "named groups are not supported by all clients; use (?:",
    "(?P<": "named groups are not supported by all clients if a name comes twice; use (?:",
    "{": r"{ that is no repetition is not read alike by all clients; write \{",
}
"""What is not the same in all clients, and why it is refused. re2j refuses ``{+``, which RE2 takes."""
_TOKEN = re.compile(r"\\x\{|\\.|\(\?P?<|\{(?!\d+(?:,\d*)?\})", re.DOTALL)


@functools.lru_cache(maxsize=1024)
def refusal(expression: str) -> str | None:
    """Returns why some client would refuse an expression; None if all accept it."""
    if len(expression) > MAX_LENGTH:
        return f"the expression has {len(expression)} characters; at most {MAX_LENGTH} are allowed"
    if not (expression.isascii() and expression.isprintable()):
        return "the expression has characters other than printable ASCII, which no path or header has"
    for token in _TOKEN.findall(expression):
        if reason := _UNPORTABLE.get(token):
            return reason
    return _refusal_of_re2(expression)


@functools.lru_cache(maxsize=4096)
def instructions(expression: str) -> int:
    """Returns the size of an expression's program.

    Raises:
        re2.error: RE2 refuses the expression.
    """
    size: int = re2.compile(expression, _options).programsize
    return size


def _refusal_of_re2(expression: str) -> str | None:
    try:
        size = instructions(expression)
    except re2.error as error:
        return f"RE2 refuses the expression: {_text(error)}"
    if size > MAX_PROGRAM:
        return f"the expression is too large: {size} instructions of RE2; at most {MAX_PROGRAM} are allowed"
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
