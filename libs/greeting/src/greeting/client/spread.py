"""How the replies are spread over the hosts. Pure."""

from collections import Counter

from greeting.client.message import Message


class Spread:
    """Counts replies by host, and failures."""

    def __init__(self) -> None:
        self._hosts: Counter[str] = Counter()
        self._failed = 0

    def replied(self, hostname: str) -> None:
        """Counts a reply."""
        self._hosts[hostname] += 1

    def failed(self) -> None:
        """Counts a failed call."""
        self._failed += 1

    def __contains__(self, hostname: object) -> bool:
        return hostname in self._hosts

    def message(self, period: str) -> Message:
        """Returns the counts as a message."""
        facts = {
            "period": period,
            "replies": self._hosts.total(),
            "failed": self._failed,
            "hosts": dict(sorted(self._hosts.items())),
        }
        return Message("spread over hosts", facts)
