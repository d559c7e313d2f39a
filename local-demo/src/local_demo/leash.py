"""Execs a program that the kernel kills when the supervisor dies: run as a script, between the two.

Usage: leash.py SUPERVISOR_PID DESCRIPTOR PROGRAM [ARGUMENT...]

It writes its process id, which the program will have too, to DESCRIPTOR, a file that the supervisor has locked: the
lock stays until the last process that inherited the file has ended, so it tells whether the id is still that of the
program. On Linux the kernel moreover kills the program when the supervisor dies (PR_SET_PDEATHSIG, prctl(2)); this
needs code between fork and exec, which in a process with threads, as gRPC's, is only safe in a program of its own.
It must not import anything beyond the standard library: it delays each start.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Ties this process to the supervisor and execs the program."""
    supervisor, descriptor, *command = sys.argv[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(supervisor):
        sys.exit("the supervisor has gone")
    os.write(int(descriptor), str(os.getpid()).encode())
    os.execv(command[0], command)  # noqa: S606 - a shell has no part in this


if __name__ == "__main__":
    main()
