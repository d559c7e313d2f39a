"""Which clients may connect, by their certificates. Pure."""

from collections.abc import Sequence
from fnmatch import fnmatchcase

from xds_server.errors import ForbiddenError
from xds_server.model import identity
from xds_server.model.identity import Identity


class Admission:
    """Decides who may connect.

    Args:
        trust_domain: Of the SPIFFE ids that count.
        allowed: Patterns of SPIFFE ids, in which ``*`` stands for any text; empty: all of the trust domain.
    """

    def __init__(self, trust_domain: str, allowed: Sequence[str] = ()) -> None:
        self._trust_domain = trust_domain
        self._allowed = allowed

    def identify(self, uris: Sequence[str] | None) -> Identity | None:
        """Who a client is; None if it connected without a certificate.

        Args:
            uris: Of its certificate, which was verified; None if it had none.

        Raises:
            ForbiddenError: It may not connect.
        """
        if uris is None:
            return None
        expected = f"spiffe://{self._trust_domain}/ns/NAMESPACE/sa/ACCOUNT"
        if len(uris) != 1:
            found = ", ".join(uris) or "none"
            raise ForbiddenError(
                f"the certificate must have one URI, the SPIFFE id {expected}; it has {found}"
            )
        found_identity = identity.parse(uris[0])
        if found_identity is None or found_identity.trust_domain != self._trust_domain:
            raise ForbiddenError(f"the certificate's SPIFFE id must be {expected}; it is {uris[0]!r}")
        if self._allowed and not any(fnmatchcase(uris[0], pattern) for pattern in self._allowed):
            raise ForbiddenError(f"{uris[0]} is none of ALLOWED_CLIENTS")
        return found_identity
