"""Texts that contain what users wrote: printable, and of bounded length."""

MAX_QUOTED = 100


def clipped(text: str, limit: int) -> str:
    """Returns a text in printable ASCII of at most that many characters; ``?`` stands for all others."""
    if len(text) > limit:
        text = text[: limit - 3] + "..."
    return "".join(character if " " <= character <= "~" else "?" for character in text)


def quoted(text: str) -> str:
    """Returns a value in quotes, clipped."""
    return f'"{clipped(text, MAX_QUOTED)}"'
