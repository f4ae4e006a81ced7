"""Executes another program, and passes on none of our descriptors, signal handlers and privileges."""

import ctypes
import os
import pwd
import signal
import sys

from ..errors import KnockError

# include/uapi/linux/prctl.h
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 47, 4


def become(words: list[str], home: str) -> None:
    """Execute a program; does not return. Raises KnockError.

    Nothing of ours is left then: root is given up before, sockets close on exec, permitted and effective capabilities
    do not survive it, and ambient ones are dropped here (capabilities(7)).

    home: the user's home directory. Under sudo the environment names root's, where a program would look for its files.
    """
    if os.geteuid() != 0 and ctypes.CDLL(None).prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) != 0:
        raise KnockError("the capabilities of this process could not be taken off, so nothing is run")
    if os.geteuid() != 0 and "SUDO_UID" in os.environ:
        name = pwd.getpwuid(os.geteuid()).pw_name
        os.environ.update(HOME=home, USER=name, LOGNAME=name)
    sys.stdout.flush()
    for number in signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT:
        signal.signal(number, signal.SIG_DFL)  # Python ignores the first two, and a program inherits that
    try:
        os.execvp(words[0], words)
    except OSError as error:
        raise KnockError(f"{words[0]} cannot be run: {error.strerror}") from None
