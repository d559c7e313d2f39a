"""The errors that end a program, each with one clear line for the person who runs it.

    ServiceError           base; exit code 1
      ConfigurationError   a setting is wrong; exit code 2, as for a wrong command line
      AddressError         an address that cannot be listened on; exit code 1

An error's text names the thing that is wrong and how to mend it. It must not know who catches it:
`lifecycle.run` turns it into a log line and an exit code.
"""


class ServiceError(Exception):
    """Something a person has to mend; its text is one line that says what and how."""

    exit_code = 1


class ConfigurationError(ServiceError):
    """A setting that is missing or wrong."""

    exit_code = 2


class AddressError(ServiceError):
    """An address that cannot be listened on."""
