"""Certificates for the secured demo, in the shape that cert-manager writes: folders with tls.crt, tls.key and ca.crt.

Whoever reads the authority's key can impersonate every service: for real use, let cert-manager or SPIRE issue certificates.
"""

import datetime as dt
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

TRUST_DOMAIN = "cluster.local"
AUTHORITY: Final = "authority"
"""The folder of the authority itself."""

FILES: Final = ("tls.crt", "tls.key", "ca.crt")

_SKEW = dt.timedelta(hours=1)
"""Certificates are valid from an hour ago: clocks differ."""
_YEAR = dt.timedelta(days=365)
"""How long certificates are valid: nothing renews those of a demo. The authority outlives them by far."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its key, in PEM."""

    certificate: bytes
    key: bytes

    def write(self, folder: Path, *authorities: "Authority") -> None:
        """Writes the files of a Secret, with the authorities to trust.

        All are replaced in one step, as kubelet does: each file is a link into a folder, which is replaced. Whoever
        read a new key beside an old certificate would take neither.
        """
        folder.mkdir(parents=True, exist_ok=True)
        link = folder / "..data"
        before = link.resolve() if link.exists() else None
        content = Path(tempfile.mkdtemp(dir=folder, prefix=".."))
        trusted = b"".join(authority.certificate for authority in authorities)
        for name, data in (("ca.crt", trusted), ("tls.key", self.key), ("tls.crt", self.certificate)):
            (content / name).write_bytes(data)
        temporary = folder / "..new"
        # One that was killed here has left it.
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(content.name)
        temporary.replace(link)
        for name in FILES:
            if not (folder / name).is_symlink():
                (folder / name).symlink_to(f"..data/{name}")
        if before is not None:
            shutil.rmtree(before)


class Authority:
    """Signs certificates.

    Args:
        name: For people.
        pair: Its certificate and key; None: new ones.
    """

    def __init__(self, name: str = "demo", pair: Pair | None = None) -> None:
        if pair is None:
            self._name = _common_name(name)
            self._key = ec.generate_private_key(ec.SECP256R1())
            self.certificate = self._sign(
                self._name, self._key, (), begin=-_SKEW, end=10 * _YEAR, is_authority=True
            )
            return
        key = load_pem_private_key(pair.key, None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)  # noqa: S101 - for the type checker: written here
        self._name = x509.load_pem_x509_certificate(pair.certificate).subject
        self._key = key
        self.certificate = pair.certificate

    @property
    def pair(self) -> Pair:
        """Its own certificate and key."""
        return Pair(self.certificate, _pem(self._key))

    def issue(
        self,
        *,
        names: Sequence[str] = (),
        spiffe_ids: Sequence[str] = (),
        begin: dt.timedelta = -_SKEW,
        end: dt.timedelta = _YEAR,
    ) -> Pair:
        """Issues a certificate for DNS names (and 127.0.0.1 with any) and SPIFFE ids, from and until times from now."""
        key = ec.generate_private_key(ec.SECP256R1())
        alternatives: list[x509.GeneralName] = [x509.DNSName(name) for name in names]
        if names:
            alternatives.append(x509.IPAddress(IPv4Address("127.0.0.1")))
        alternatives += [x509.UniformResourceIdentifier(found) for found in spiffe_ids]
        signed = self._sign(_common_name("leaf"), key, alternatives, begin=begin, end=end, is_authority=False)
        return Pair(signed, _pem(key))

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


def spiffe_id(account: str, namespace: str = "default") -> str:
    """The identity of a Kubernetes service account."""
    return f"spiffe://{TRUST_DOMAIN}/ns/{namespace}/sa/{account}"


def issue_all(folder: Path, accounts: Iterable[str], names: Mapping[str, Sequence[str]]) -> None:
    """Issues a certificate to each service account, into a folder of its name; the authority is made only once.

    Args:
        folder: For all folders.
        accounts: Service accounts.
        names: DNS names of those that are reached by name.
    """
    own = folder / AUTHORITY
    if (own / "tls.key").exists():
        authority = Authority(pair=Pair((own / "tls.crt").read_bytes(), (own / "tls.key").read_bytes()))
    else:
        authority = Authority()
        authority.pair.write(own, authority)
    for account in accounts:
        issued = authority.issue(names=names.get(account, ()), spiffe_ids=[spiffe_id(account)])
        issued.write(folder / account, authority)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _common_name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])
