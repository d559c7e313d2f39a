"""Requests to the Kubernetes API server: configuration, credentials and transport are the official client's.

Its generated models are not used (``objects`` says why), and neither are its retries: whoever asks decides when to
ask again. Every request has a deadline. Calls block; they belong in a thread.
"""

import os
from collections.abc import Iterator, Mapping

import urllib3
import yaml
from kubernetes import client, config

from servicekit.errors import ConfigurationError
from xds_server.discovery import objects
from xds_server.errors import ApiError, ExpiredError, MalformedObjectError

CONNECT_TIMEOUT = 3.0
"""Seconds to connect to the API server."""
LIST_TIMEOUT = 20.0
"""Seconds that it may be silent for before and in the midst of a list: an overloaded server may let a request wait for
15, see https://kubernetes.io/docs/concepts/cluster-administration/flow-control/."""
WATCH_TIMEOUT = 10.0
"""Seconds to the head of a watch, which comes at once."""
MAX_LINE_BYTES = 16 * 1024 * 1024
"""Of one watch event; the API server stores no object larger than a tenth of that."""
_GONE = 410


class Api:
    """A connection to one API server.

    Raises:
        ConfigurationError: There is no usable kubeconfig and no service account.
    """

    def __init__(self) -> None:
        settings = client.Configuration()
        named = os.environ.get("KUBECONFIG")
        try:
            if not named and os.environ.get("KUBERNETES_SERVICE_HOST"):
                _load_service_account(settings)
                # Before every request: the official client goes by the time of day, which may be set back by hours.
                settings.refresh_api_key_hook = _load_service_account  # type: ignore[assignment] # typed by its default
            else:
                config.load_kube_config(config_file=named or "~/.kube/config", client_configuration=settings)
        except (config.ConfigException, yaml.YAMLError, OSError, ValueError, TypeError) as error:
            reason = " ".join(str(error).split()).rstrip(".")
            raise ConfigurationError(
                f"no way to reach Kubernetes: {reason}. Name a working kubeconfig "
                f"(now KUBECONFIG={named or ''}), run in a pod with a service account, or use DISCOVERY=files"
            ) from error
        settings.retries = False
        self.host: str = settings.host
        self._client = client.ApiClient(settings)

    def get(self, path: str, query: Mapping[str, str]) -> bytes:
        """GETs a whole body.

        Args:
            path: From the root of the API, such as ``/api/v1/services``.
            query: Its parameters.

        Raises:
            ApiError: There was no answer, or not a good one; ExpiredError if it was 410.
        """
        response = self._open(path, query, LIST_TIMEOUT)
        try:
            return bytes(response.read())
        except urllib3.exceptions.HTTPError as error:
            raise ApiError(_explain(error)) from error
        finally:
            response.release_conn()

    def lines(self, path: str, query: Mapping[str, str], *, silence: float) -> Iterator[bytes]:
        """GETs a body that the server goes on writing, line by line as they come; ends when the server ends it.

        Raises:
            ApiError: As for get, or no more came for `silence` seconds.
        """
        response = self._open(path, query, WATCH_TIMEOUT)
        buffer = bytearray()
        try:
            _allow_silence(response, silence)
            while chunk := response.read1(65536):
                buffer += chunk
                *complete, rest = bytes(buffer).split(b"\n") if b"\n" in chunk else [bytes(buffer)]
                yield from (line for line in complete if line)
                if complete:
                    buffer[:] = rest
                elif len(buffer) > MAX_LINE_BYTES:
                    raise ApiError(f"a watch event is larger than {MAX_LINE_BYTES} bytes")
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise ApiError(_explain(error)) from error
        finally:
            # Not back into the pool: a watch that was left half-way has bytes to come.
            response.close()

    def _open(self, path: str, query: Mapping[str, str], timeout: float) -> urllib3.HTTPResponse:
        try:
            # Reads the service account's token again, hence may fail as a file can.
            request = self._client.param_serialize(
                "GET", path, query_params=list(query.items()), auth_settings=["BearerToken"]
            )
            answer = self._client.call_api(*request, _request_timeout=(CONNECT_TIMEOUT, timeout))
        except (urllib3.exceptions.HTTPError, client.ApiException, config.ConfigException, OSError) as error:
            raise ApiError(_explain(error)) from error
        response: urllib3.HTTPResponse = answer.response
        if response.status == 200:  # noqa: PLR2004 - OK
            return response
        try:
            raise _refusal(response)
        finally:
            response.close()


def _load_service_account(settings: client.Configuration) -> None:
    config.load_incluster_config(client_configuration=settings, try_refresh_token=False)


def _allow_silence(response: urllib3.HTTPResponse, seconds: float) -> None:
    """Sets how long the server may be silent from now on: urllib3 has one deadline for the head and the body.

    There is no socket to set it on if the server answers with "Connection: close", as no Kubernetes API server does to a
    watch: then it has to send something every few seconds.
    """
    connection = response.connection
    if connection is not None and connection.sock is not None:
        connection.sock.settimeout(seconds)


def _refusal(response: urllib3.HTTPResponse) -> ApiError:
    """The error that an answer other than 200 stands for."""
    try:
        reason = objects.decode(response.read(65536), objects.Status).message
    except (MalformedObjectError, urllib3.exceptions.HTTPError):
        reason = ""
    text = f"{response.status} {reason or response.reason or 'without a reason'}"
    if response.status == _GONE:
        return ExpiredError(text, status=_GONE)
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
