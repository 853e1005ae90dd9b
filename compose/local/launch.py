"""Become a program that is signalled when its parent dies.

Run by path, never imported: `python -I -S launch.py PARENT SIGNAL UID GID PROGRAM [ARGUMENT...]`.
PARENT is the pid of the expected parent; UID and GID of -1 keep the current ones.

Why a program and not subprocess's `preexec_fn`: between fork and exec of a process with threads, Python
code can deadlock (and Python 3.12 warns of it). After exec, it cannot.

Order matters: the kernel forgets the parent-death signal when a process changes its user (prctl(2)), so
the user is changed first. The parent may have died before the signal was asked for: hence the last check.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main() -> None:
    parent, death_signal, uid, gid = (int(value) for value in sys.argv[1:5])
    program = sys.argv[5:]
    if uid >= 0:
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(PR_SET_PDEATHSIG, death_signal, 0, 0, 0) != 0:
            sys.exit(f"prctl(PR_SET_PDEATHSIG): {os.strerror(ctypes.get_errno())}")
    if os.getppid() != parent:
        sys.exit(f"not started: process {parent} ended before {program[0]} could begin")
    # Python ignores these two at its start, and an ignored signal stays ignored across exec.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    os.execv(program[0], program)  # noqa: S606  (a list, no shell)


if __name__ == "__main__":
    main()
