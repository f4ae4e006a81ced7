"""Sets up the daemon's log, its link to the service manager, and its move to the background."""

import logging
import os
import pwd
import socket
from collections.abc import Callable

from .. import sources
from ..errors import KnockError, SourceError
from ..profiles import files
from ..server import privsep, syslog
from ..server.config import Config

log = logging.getLogger("knockknock")


def open_source(settings: Config, user: pwd.struct_passwd, *, look: bool = False) -> sources.Source:
    """Open the source, and check that its user can read on after the log file's next rotation. Raises KnockError."""
    source = sources.open_source(settings, look=look)
    groups = [source.group] if source.group is not None else []
    if source.path == settings.log_file and not privsep.could_open(user, groups, settings.log_file):
        place = os.path.dirname(os.path.realpath(settings.log_file))
        raise SourceError(
            f"the user {user.pw_name} may not go into {place}, so {settings.log_file} cannot be opened after its next "
            f"rotation: chmod o+x {place}, and what is above it, or set source = kmsg"
        )
    return source


def logger(where: str) -> int | None:
    """Log to stderr or to the syslog daemon, with a time only if nobody else adds one; connect to the latter now."""
    handler: logging.Handler = syslog.Handler() if where == "syslog" else logging.StreamHandler()
    if where != "syslog" and "JOURNAL_STREAM" not in os.environ:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    return handler.fileno() if isinstance(handler, syslog.Handler) else None


def notifier() -> Callable[[str], None]:
    """Return a function that tells systemd, if it asked for it (sd_notify(3)); later no socket can be made.

    Raises KnockError, and so does the function.
    """
    if not (path := os.environ.get("NOTIFY_SOCKET")):
        return lambda state: None
    systemd = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)

    def attempt(step: Callable[[], object]) -> None:
        try:
            step()
        except OSError as error:
            raise KnockError(f"{path}, which NOTIFY_SOCKET names, cannot be told: {error.strerror}") from None

    attempt(lambda: systemd.connect("\0" + path[1:] if path.startswith("@") else path))
    return lambda state: attempt(lambda: systemd.send(state.encode()))


def background() -> Callable[[], None]:
    """Fork. The parent waits for the status that the returned function sends, and ends with it."""
    listening, tell = os.pipe()
    if child := os.fork():
        os.close(tell)
        told = os.read(listening, 1)
        if not told:
            os.waitpid(child, 0)
        os._exit(0 if told else 1)
    os.close(listening)
    os.setsid()
    os.chdir("/")

    def ready() -> None:
        os.write(tell, b"!")
        os.close(tell)

    return ready


def write_pid(path: str) -> None:
    """Write the process id for others, to signal this process. Raises KnockError."""
    try:
        files.write_durably(path, f"{os.getpid()}\n", 0o644)
    except OSError as error:
        raise KnockError(f"{path} cannot be written: {error.strerror}; name another with --pid-file") from None


def detach() -> None:
    """Detach from the terminal."""
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
