"""Sends log messages to the syslog daemon, through one socket that is opened once."""

import contextlib
import logging
import os
import socket

PATH = "/dev/log"
_DAEMON = 3 << 3
_SEVERITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}
"""Facility and severities of RFC 3164, section 4.1.1."""


class Handler(logging.Handler):
    """A logging handler that reconnects its one socket when the syslog daemon was restarted.

    logging's own SysLogHandler makes a new socket, which the sandbox forbids. Without a syslog daemon it sends nothing.
    """

    def __init__(self, path: str = PATH) -> None:
        super().__init__()
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.setFormatter(logging.Formatter(f"knockknock-daemon[{os.getpid()}]: %(message)s"))
        with contextlib.suppress(OSError):
            self._socket.connect(path)

    def fileno(self) -> int:
        """The socket's descriptor, which sandbox.prepare() must know."""
        return self._socket.fileno()

    def emit(self, record: logging.LogRecord) -> None:
        """Send one message; if that fails, reconnect and try again."""
        message = f"<{_DAEMON | _SEVERITIES.get(record.levelno, 6)}>{self.format(record)}".encode()
        try:
            self._socket.send(message)
        except OSError:
            with contextlib.suppress(OSError):
                self._socket.connect(self._path)
                self._socket.send(message)
