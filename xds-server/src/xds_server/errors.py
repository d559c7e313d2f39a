"""The errors of this package.

ServiceError (servicekit)         one clear line for the user; ends the program
└── ConfigurationError            exit code 2
XdsServerError                    something here went wrong; the program goes on
├── MalformedObjectError          an object, a document or a file can't be understood
└── ApiError                      the Kubernetes API can't be asked, or says no
    └── ExpiredError              ... because the version asked for is too old: list again
"""


class XdsServerError(Exception):
    """Base of this package's own errors."""


class MalformedObjectError(XdsServerError):
    """An object, a YAML document or a file that can't be understood; the text names what is wrong with it."""


class ApiError(XdsServerError):
    """The Kubernetes API could not be asked, or it refused.

    Attributes:
        status: The HTTP status; 0 if there was no answer.
        retry_after: Seconds that the API asks to be left alone; 0 if it says nothing.
    """

    def __init__(self, text: str, *, status: int = 0, retry_after: float = 0) -> None:
        super().__init__(text)
        self.status = status
        self.retry_after = retry_after


class ExpiredError(ApiError):
    """HTTP 410: the resource version or continue token is too old, so the collection must be listed again."""
