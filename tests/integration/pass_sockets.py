"""Becomes a program that has sockets from a service manager, as sd_listen_fds(3) has it:

    pass_sockets.py FD:NAME ... -- PROGRAM ARGUMENT ...

KEYLESS_LISTEN_PID in the environment stands in for the program's own process number.
"""

import fcntl
import os
import sys

FIRST = 3

if __name__ == "__main__":
    divider = sys.argv.index("--")
    passed = [argument.partition(":") for argument in sys.argv[1:divider]]
    program = sys.argv[divider + 1 :]
    # Out of the way first: one of them may have another's number.
    copies = [fcntl.fcntl(int(number), fcntl.F_DUPFD, 100) for number, _, _ in passed]
    for place, copy in enumerate(copies, FIRST):
        os.dup2(copy, place, inheritable=True)
    os.closerange(FIRST + len(copies), 1000)
    os.environ["LISTEN_PID"] = os.environ.pop("KEYLESS_LISTEN_PID", str(os.getpid()))
    os.environ["LISTEN_FDS"] = str(len(copies))
    os.environ["LISTEN_FDNAMES"] = ":".join(name for _, _, name in passed)
    os.execvp(program[0], program)
