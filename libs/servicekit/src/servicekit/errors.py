"""The errors that end a program, each with one line for the person who runs it.

    ServiceError           base; exit code 1
      ConfigurationError   a setting is wrong; exit code 2, as for a wrong command line
      AddressError         an address that cannot be listened on; exit code 1
      TaskEndedError       a task that should run until the shutdown has ended; exit code 1

The message names what is wrong and how to correct it.
`lifecycle.run` and `commands.run` turn them into a line and an exit code.
"""


class ServiceError(Exception):
    """An error that the person who runs the program can correct; its message is one line that says how."""

    exit_code = 1


class ConfigurationError(ServiceError):
    """A setting that is missing or wrong."""

    exit_code = 2


class AddressError(ServiceError):
    """An address that cannot be listened on."""


class TaskEndedError(ServiceError):
    """A task that should run until the shutdown has ended, by a defect; its cause is the task's exception."""
