"""Requests to the Kubernetes API server: configuration, credentials and transport are the official client's.

Its generated models are not used (``objects`` says why), and neither are its retries: the caller decides when to ask
again. Every request has a deadline and every answer a bound. Calls block, so they belong in a thread.
"""

import contextlib
import os
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import urllib3
import yaml
from kubernetes import client, config

from servicekit.errors import ConfigurationError
from xds_server.errors import ApiError, ConflictError, CredentialsError, ExpiredError, MalformedObjectError
from xds_server.kubernetes.exchange import Exchange, observe
from xds_server.kubernetes.limits import DEFAULT_LIMITS, Limits
from xds_server.objects import meta

_OK = frozenset({200, 201})
_CONFLICT = 409
_GONE = 410
_READ_BYTES = 256 * 1024
_STATUS_BYTES = 64 * 1024
JSON = "application/json"
MERGE_PATCH = "application/merge-patch+json"
"""https://www.rfc-editor.org/rfc/rfc7396"""


class _Request(NamedTuple):
    """A request, before it is serialised."""

    method: str
    path: str
    query: Mapping[str, str]
    accept: str
    content_type: str = ""
    body: object = None


class Api:
    """A connection pool for one API server.

    Args:
        limits: Deadlines and bounds.
        connections: How many idle connections the pool keeps. urllib3 closes more than that, with a warning for each.

    Raises:
        ConfigurationError: There is no usable kubeconfig and no service account.
    """

    def __init__(self, limits: Limits = DEFAULT_LIMITS, *, connections: int = 4) -> None:
        self._limits = limits
        settings = client.Configuration()
        named = os.environ.get("KUBECONFIG")
        try:
            if not named and os.environ.get("KUBERNETES_SERVICE_HOST"):
                _load_service_account(settings)
                # Before every request. The official client goes by the wall clock, which may be set back by hours.
                settings.refresh_api_key_hook = _load_service_account  # type: ignore[assignment] # typed by its default
            else:
                config.load_kube_config(config_file=named or "~/.kube/config", client_configuration=settings)
            settings.retries = False
            settings.connection_pool_maxsize = connections
            self._client = client.ApiClient(settings)
        # The official client does not check the types in a kubeconfig.
        except (
            config.ConfigException,
            yaml.YAMLError,
            OSError,
            ValueError,
            TypeError,
            AttributeError,
            LookupError,
        ) as error:
            reason = " ".join(str(error).split()).rstrip(".")
            if isinstance(error, TypeError | AttributeError | LookupError):
                reason = f"the kubeconfig is malformed ({reason})"
            raise ConfigurationError(
                f"no way to reach Kubernetes: {reason}. Name a working kubeconfig "
                f"(now KUBECONFIG={named or ''}), run in a pod with a service account, or use DISCOVERY=files"
            ) from error
        self.host: str = settings.host
        observe(self._client.rest_client.pool_manager)

    def get(
        self, path: str, query: Mapping[str, str], *, within: float | None = None, accept: str = JSON
    ) -> bytes:
        """GETs a whole body.

        Args:
            path: From the root of the API, such as ``/api/v1/pods``.
            query: Its parameters.
            within: Seconds for all of it, if less than the limit.
            accept: The form to ask for.

        Raises:
            ApiError: There was no good answer in time, or it was too large; ExpiredError if it was 410.
        """
        limits = self._limits
        seconds = min(limits.list_request, limits.list_request if within is None else within)
        return self._whole(_Request("GET", path, query, accept), limits.list_silence, seconds)

    def patch(self, path: str, body: object) -> bytes:
        """Merges fields into an object, and returns it as it is then.

        Args:
            path: Of the object.
            body: The fields. With ``metadata.resourceVersion``, the object must not have changed since.

        Raises:
            ApiError: As for get; ConflictError if the object has changed.
        """
        return self._write(_Request("PATCH", path, {}, JSON, MERGE_PATCH, body))

    def post(self, path: str, body: object) -> bytes:
        """Creates an object, and returns it.

        Args:
            path: Of the collection.
            body: The object.

        Raises:
            ApiError: As for get; ConflictError if there is such an object.
        """
        return self._write(_Request("POST", path, {}, JSON, JSON, body))

    def _write(self, request: _Request) -> bytes:
        return self._whole(request, self._limits.list_silence, self._limits.write_request)

    def _whole(self, request: _Request, silence: float, seconds: float) -> bytes:
        body = bytearray()
        with self._request(request, silence=silence, seconds=seconds) as (response, exchange):
            while chunk := response.read(_READ_BYTES):
                body += chunk
                if len(body) > self._limits.list_bytes:
                    raise ApiError(f"the answer is larger than {self._limits.list_bytes} bytes")
            _check(exchange, seconds)
        return bytes(body)

    @contextlib.contextmanager
    def watch(
        self, path: str, query: Mapping[str, str], *, seconds: float, accept: str = JSON
    ) -> Iterator[Iterator[bytes]]:
        """GETs a body that the server goes on writing. Enters as soon as its head has come.

        The lines raise ApiError if the answer breaks off, falls silent, or goes on for more than `seconds`; they end
        when the server ends the answer.

        Args:
            path: As for get.
            query: As for get.
            seconds: For all of it.
            accept: As for get.

        Raises:
            ApiError: As for get.
        """
        limits = self._limits
        request = _Request("GET", path, query, accept)
        with self._request(request, silence=limits.watch_head, seconds=seconds) as (response, exchange):
            exchange.allow_silence(limits.watch_silence)
            yield _lines(response, limits.event_bytes, exchange, seconds)

    @contextlib.contextmanager
    def _request(
        self, request: _Request, *, silence: float, seconds: float
    ) -> Iterator[tuple[urllib3.HTTPResponse, Exchange]]:
        """Sends a request; enters with the response if its status is good. Errors inside become ApiErrors."""
        with Exchange(seconds) as exchange, _explained(exchange, seconds):
            response = self._open(request, silence, exchange)
            try:
                if response.status not in _OK:
                    raise _refusal(response)
                yield response, exchange
            finally:
                # What was read to its end is back in the pool already; anything else has bytes to come.
                response.close()

    def _open(self, request: _Request, silence: float, exchange: Exchange) -> urllib3.HTTPResponse:
        try:
            return self._send(request, silence)
        except urllib3.exceptions.ProtocolError:
            # A server may close an idle connection at the moment in which it is used: that says nothing about the
            # server, and a GET may be sent twice. https://www.rfc-editor.org/rfc/rfc9110.html#section-9.2.2
            # So may a write here: it carries the version that it changes, or the name that it creates.
            if exchange.connected or exchange.expired:
                raise
            return self._send(request, silence)

    def _send(self, request: _Request, silence: float) -> urllib3.HTTPResponse:
        headers = {"Accept": request.accept}
        if request.content_type:
            headers["Content-Type"] = request.content_type
        try:
            # Reads the service account's token again, so it may fail as a file can.
            serialised = self._client.param_serialize(
                request.method,
                request.path,
                query_params=list(request.query.items()),
                header_params=headers,
                body=request.body,
                auth_settings=["BearerToken"],
            )
            answer = self._client.call_api(*serialised, _request_timeout=(self._limits.connect, silence))
        except (urllib3.exceptions.HTTPError, OSError):
            raise  # Some of them are ValueErrors, too.
        except ValueError:
            # The error of http.client contains the header, and so the token: it must not reach a log.
            raise CredentialsError("the token is not UTF-8, or no valid value of an HTTP header") from None
        response: urllib3.HTTPResponse = answer.response
        return response


def _load_service_account(settings: client.Configuration) -> None:
    config.load_incluster_config(client_configuration=settings, try_refresh_token=False)


def _lines(response: urllib3.HTTPResponse, limit: int, exchange: Exchange, seconds: float) -> Iterator[bytes]:
    """Yields the lines of a body as they come."""
    buffer = bytearray()
    with _explained(exchange, seconds):
        while chunk := response.read1(64 * 1024):
            buffer += chunk
            *complete, rest = bytes(buffer).split(b"\n") if b"\n" in chunk else [bytes(buffer)]
            yield from (line for line in complete if line)
            if complete:
                buffer[:] = rest
            elif len(buffer) > limit:
                raise ApiError(f"a watch event is larger than {limit} bytes")
        _check(exchange, seconds)


@contextlib.contextmanager
def _explained(exchange: Exchange, seconds: float) -> Iterator[None]:
    """Turns the errors of the transport into ApiErrors."""
    try:
        yield
    except (urllib3.exceptions.HTTPError, client.ApiException, config.ConfigException, OSError) as error:
        _check(exchange, seconds, error)
        raise ApiError(_explain(error)) from error


def _check(exchange: Exchange, seconds: float, error: Exception | None = None) -> None:
    """Raises if the deadline has passed: an answer that was cut by it may look complete."""
    if exchange.expired:
        raise ApiError(f"the answer was not complete after {seconds:.0f} s") from error


def _refusal(response: urllib3.HTTPResponse) -> ApiError:
    """The error that an answer stands for that is none of the good ones."""
    try:
        reason = meta.decode(response.read(_STATUS_BYTES), meta.Status).message
    except (MalformedObjectError, urllib3.exceptions.HTTPError):
        reason = ""
    text = f"{response.status} {reason or response.reason or 'without a reason'}"
    if response.status == _GONE:
        return ExpiredError(text, status=_GONE)
    if response.status == _CONFLICT:
        return ConflictError(text, status=_CONFLICT)
    try:
        retry_after = float(response.headers.get("Retry-After", 0))
    except ValueError:
        retry_after = 0
    return ApiError(text, status=response.status, retry_after=retry_after)


def _explain(error: Exception) -> str:
    """The innermost cause of a failed request, in a few words."""
    while isinstance(error, urllib3.exceptions.MaxRetryError) and error.reason:
        error = error.reason
    return f"{type(error).__name__}: {error}".replace("\n", " ")
