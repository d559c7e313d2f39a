"""The errors of this package.

ServiceError (servicekit)         one clear line for the user; ends the program
└── ConfigurationError            exit code 2
XdsServerError                    something went wrong; the program continues
├── MalformedObjectError          an object, a document or a file can't be decoded
├── CertificateError              the files of a certificate can't be used
├── RefusedError                  a policy has a value that its definition rejects
├── ApiError                      a request to the Kubernetes API failed
│   ├── ExpiredError              ... because the requested version is too old: list again
│   ├── ConflictError             ... because the object has changed since it was read, or exists already
│   └── CredentialsError          ... because the token can't be read or sent
└── RequestError                  a client's request is refused, and its stream ends
    ├── InvalidRequestError       ... because it breaks the protocol or a limit of one request
    ├── ForbiddenError            ... because of its certificate, or because it claims to be somebody else
    └── ExhaustedError            ... because too much is held for its address, or for all clients together
"""


class XdsServerError(Exception):
    """Base of this package's own errors."""


class MalformedObjectError(XdsServerError):
    """An object, a YAML document or a file that can't be decoded; the text names what is wrong with it."""


class CertificateError(XdsServerError):
    """A certificate, its key, or the authorities of clients can't be used; the text names the file and the reason."""


class RefusedError(XdsServerError):
    """A policy can't be used; the text names the field and what is expected."""


class ApiError(XdsServerError):
    """A request to the Kubernetes API failed or was refused.

    Attributes:
        status: The HTTP status; 0 if there was no answer.
        retry_after: Seconds for which the API asks not to be called again; 0 if it does not say.
    """

    def __init__(self, text: str, *, status: int = 0, retry_after: float = 0) -> None:
        super().__init__(text)
        self.status = status
        self.retry_after = retry_after


class ExpiredError(ApiError):
    """HTTP 410: the resource version or continue token is too old, so the collection must be listed again."""


class ConflictError(ApiError):
    """HTTP 409: the object has changed since it was read, or exists already."""


class CredentialsError(ApiError):
    """The token can't be read or sent. The text does not contain it."""


class RequestError(XdsServerError):
    """A client's request is refused; its stream ends with this text."""


class InvalidRequestError(RequestError):
    """The client broke the protocol or a limit of one request."""


class ForbiddenError(RequestError):
    """The client's certificate does not allow what it does; the text says what would."""


class ExhaustedError(RequestError):
    """The client's address, or all clients together, hold as much as is allowed."""
