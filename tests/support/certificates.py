"""Certificates for tests, in the shape that cert-manager writes: tls.crt, tls.key and ca.crt in a folder."""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

HOUR = dt.timedelta(hours=1)


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, in PEM."""

    certificate: bytes
    key: bytes

    def write(self, folder: Path, authority: "Authority") -> None:
        """Writes the files of a Secret."""
        folder.mkdir(exist_ok=True, parents=True)
        for name, content in (
            ("tls.crt", self.certificate),
            ("tls.key", self.key),
            ("ca.crt", authority.certificate),
        ):
            temporary = folder / f".{name}"
            temporary.write_bytes(content)
            temporary.replace(folder / name)


class Authority:
    """Signs certificates."""

    def __init__(self, name: str = "authority") -> None:
        self._name = _name(name)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = self._sign(self._name, self._key, [], begin=-HOUR, end=HOUR, is_authority=True)

    def issue(
        self,
        *,
        names: Sequence[str] = (),
        spiffe_ids: Sequence[str] = (),
        begin: dt.timedelta = -HOUR,
        end: dt.timedelta = HOUR,
    ) -> Pair:
        """Issues a certificate for names (and 127.0.0.1 with any) and SPIFFE ids, from and until times from now."""
        key = ec.generate_private_key(ec.SECP256R1())
        alternatives: list[x509.GeneralName] = [x509.DNSName(name) for name in names]
        if names:
            alternatives.append(x509.IPAddress(IPv4Address("127.0.0.1")))
        alternatives += [x509.UniformResourceIdentifier(found) for found in spiffe_ids]
        certificate = self._sign(_name("leaf"), key, alternatives, begin=begin, end=end, is_authority=False)
        return Pair(certificate, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))

    def _sign(  # noqa: PLR0913 - each is one thing
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        alternatives: Sequence[x509.GeneralName],
        *,
        begin: dt.timedelta,
        end: dt.timedelta,
        is_authority: bool,
    ) -> bytes:
        now = dt.datetime.now(dt.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + begin)
            .not_valid_after(now + end)
            .add_extension(x509.BasicConstraints(is_authority, None), critical=True)
        )
        if alternatives:
            builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        return builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])
