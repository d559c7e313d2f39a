"""The server's certificate, its key, and the authorities of clients: from files, which are read again when they change.

A renewed pair that can't be used changes nothing: the one before stays in use, and the log and a metric say so.
"""

import datetime as dt
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import structlog
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from servicekit.errors import ConfigurationError
from xds_server.errors import CertificateError
from xds_server.mesh.problems import Problem

log = structlog.get_logger()

_HINT = "the one before stays in use; renew the files"


@dataclass(frozen=True, slots=True)
class Loaded:
    """What was read.

    Attributes:
        stamp: Of the files; other content has another one.
        configuration: For grpc.
        begins: When the certificate becomes valid.
        expires: When it expires.
    """

    stamp: tuple[object, ...]
    configuration: grpc.ServerCertificateConfiguration
    begins: dt.datetime
    expires: dt.datetime

    def invalidity(self) -> str:
        """Why clients refuse the certificate now; empty if they do not."""
        now = dt.datetime.now(dt.UTC)
        if self.expires < now:
            return f"it expired at {self.expires:%Y-%m-%d %H:%M:%S} UTC"
        if self.begins > now:
            return f"it is not valid before {self.begins:%Y-%m-%d %H:%M:%S} UTC"
        return ""


class Certificates:
    """The certificate in use.

    Args:
        certificate: Of the server, with its chain; PEM.
        key: Of the server; PEM.
        client_authorities: The authorities whose certificates clients need; None: clients need none.

    Raises:
        ConfigurationError: The files can't be used.
    """

    def __init__(self, certificate: Path, key: Path, client_authorities: Path | None) -> None:
        self._certificate, self._key, self._authorities = certificate, key, client_authorities
        self._lock = threading.Lock()
        self._problem = ""
        self._failed: tuple[object, ...] | None = None
        try:
            self._used = self._offered = self._read(self._stamp())
        except (OSError, CertificateError) as error:
            raise ConfigurationError(f"TLS: {_text(error)}") from error
        if reason := self._used.invalidity():
            log.error(
                "clients refuse the certificate", file=str(certificate), reason=reason, hint="renew the files"
            )

    def expiry(self) -> float:
        """When the certificate in use expires, in seconds since 1970."""
        self.refresh()
        return self._used.expires.timestamp()

    @property
    def problems(self) -> Sequence[Problem]:
        """Why the files, as they are now, are not in use; empty if they are."""
        self.refresh()
        found = self._problem
        if not found and (reason := self._used.invalidity()):
            found = f"clients refuse it: {reason}"
        return [Problem("Certificate", ("", str(self._certificate)), found)] if found else []

    def credentials(self) -> grpc.ServerCredentials:
        """For a port of a server. grpc asks for a newer certificate at every connection; those that are open stay."""
        return grpc.dynamic_ssl_server_credentials(
            self._used.configuration, self._newer, require_client_authentication=self._authorities is not None
        )

    def refresh(self) -> None:
        """Reads the files again if they have changed."""
        with self._lock:
            self._refresh()

    def _newer(self) -> Any:
        """The certificate for a connection if it differs from the one that grpc has, else None, as grpc expects."""
        with self._lock:
            self._refresh()
            if self._offered is self._used:
                return None
            self._offered = self._used
            return self._used.configuration

    def _refresh(self) -> None:
        stamp: tuple[object, ...] | None = None
        try:
            stamp = self._stamp()
            if stamp in (self._used.stamp, self._failed):
                if stamp == self._used.stamp:
                    self._problem, self._failed = "", None
                return
            found = self._read(stamp)
        except (OSError, CertificateError) as error:
            self._note(_text(error), stamp)
            return
        if reason := found.invalidity():
            # It is read again each time, since it may become valid.
            self._note(f"{self._certificate}: {reason}", None)
            return
        self._used, self._problem, self._failed = found, "", None
        log.info("certificate renewed", file=str(self._certificate), expires=found.expires.isoformat())

    def _note(self, problem: str, stamp: tuple[object, ...] | None) -> None:
        """Records why the files can't be used, and logs it once."""
        if problem != self._problem:
            log.error("a renewed certificate can't be used", reason=problem, hint=_HINT)
        self._problem, self._failed = problem, stamp

    def _stamp(self) -> tuple[object, ...]:
        """Changes with the files. Kubernetes replaces the files of a Secret by another link, so links are followed."""
        files = [file for file in (self._certificate, self._key, self._authorities) if file is not None]
        stats = [file.stat() for file in files]
        return tuple((each.st_ino, each.st_mtime_ns, each.st_size) for each in stats)

    def _read(self, stamp: tuple[object, ...]) -> Loaded:
        """Reads and checks the files.

        Raises:
            OSError: One can't be read.
            CertificateError: One is not what it should be.
        """
        chain, key = self._certificate.read_bytes(), self._key.read_bytes()
        first = _certificates(self._certificate, chain)[0]
        try:
            public = load_pem_private_key(key, None).public_key()
        except (ValueError, TypeError) as error:  # of another form, or encrypted
            raise CertificateError(f"{self._key} is no private key in PEM without a password") from error
        if _spki(public) != _spki(first.public_key()):
            raise CertificateError(f"{self._key} is not the key of {self._certificate}")
        authorities = None
        if self._authorities is not None:
            authorities = self._authorities.read_bytes()
            _certificates(self._authorities, authorities)
        configuration = grpc.ssl_server_certificate_configuration([(key, chain)], authorities)
        return Loaded(stamp, configuration, first.not_valid_before_utc, first.not_valid_after_utc)


def _certificates(file: Path, pem: bytes) -> Sequence[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise CertificateError(f"{file} holds no certificate in PEM") from error


def _spki(public: object) -> bytes:
    encoded: bytes = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)  # type: ignore[attr-defined]
    return encoded


def _text(error: Exception) -> str:
    return f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else str(error)
