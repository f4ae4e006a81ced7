"""Sends one packet that the kernel should log, to see whether the daemon would receive it."""

import contextlib
import select
import socket
import time
from collections.abc import Callable, Iterator
from functools import partial

from .. import sources
from ..errors import FirewallError, KnockError, SourceError
from ..root import libnftables
from ..root.listing import connect
from ..root.ruleset import PRIORITY, told
from ..server import instance
from ..server.config import Config

SECONDS, SHORT = 3.0, 0.5
"""Seconds to wait for its line, and if the firewall has not logged it."""
TABLE = "knockknock_check"
HOST = "127.0.0.1"


def heard(config: Config) -> str:
    """Send a SYN to this machine itself through a rule like the daemon's, and read the kernel's line about it.

    Returns the result as a sentence, also if it could not be tried. Raises KnockError if a daemon would be deaf. The
    rule is in a table of its own, for this one packet, and is removed again.
    """
    untried = "no packet was sent to see whether it is heard"
    if config.source == "nflog" and (pid := instance.daemon(config.state)):
        return (
            f"{untried}: the daemon that runs (process {pid}) has the NFLOG group; it says in its status if it is deaf"
        )
    try:
        source = sources.open_source(config)
        with _reserved() as port, _rule(port, config.nflog_group if config.source == "nflog" else 0) as logged:
            _send(port)
            came, front = _wait(source, port, SECONDS if logged() else SHORT)
            count = logged()
    except (SourceError, FirewallError) as error:
        return f"{untried}: {error}"
    except OSError as error:
        return f"{untried}: {error.strerror}"
    if came:
        return f"a packet to {HOST} was logged by the kernel, and heard from {source.path}"
    if not count:
        return f"a packet to {HOST} did not reach the firewall, so it is not known whether {source.path} is heard"
    if front:
        raise KnockError(
            f'a packet was logged, but its line is not understood in {source.path}: it begins "{front}"; '
            "set source = kmsg or nflog, and please report this beginning"
        )
    raise KnockError(
        f"a packet was logged, but nothing of it came in {source.path} within {SECONDS:.0f} s: its syslog daemon must "
        "write kern.debug there; in a container the host must set net.netfilter.nf_log_all_netns=1; "
        "or set source = nflog"
    )


@contextlib.contextmanager
def _reserved() -> Iterator[int]:
    """Reserve a TCP port at which nobody listens."""
    with socket.socket() as one:
        one.bind((HOST, 0))
        yield one.getsockname()[1]


@contextlib.contextmanager
def _rule(port: int, nflog_group: int) -> Iterator[Callable[[], int]]:
    """Place a rule that logs SYNs from this machine to one of its ports; yields a function that returns its count.
    Raises FirewallError."""
    syn = f'iifname "lo" ip saddr {HOST} tcp dport {port} tcp flags & (fin|syn|rst|ack) == syn'
    hook = f"type filter hook prerouting priority {PRIORITY}; policy accept;"
    chain = f"chain input {{ {hook} {syn} counter name told {told(nflog_group)}; }}"
    libnftables.run(f"add table inet {TABLE}; delete table inet {TABLE}")  # left by a check that was killed
    libnftables.run(f"table inet {TABLE} {{ counter told {{ }}; {chain}; }}")
    try:
        yield partial(connect().packets, TABLE, "told")
    finally:
        libnftables.run(f"delete table inet {TABLE}")


def _send(port: int) -> None:
    """Begin a connection that nobody accepts. Raises OSError."""
    with socket.socket() as one:
        one.setblocking(False)
        with contextlib.suppress(BlockingIOError, ConnectionRefusedError):
            one.connect((HOST, port))


def _wait(source: sources.Source, port: int, seconds: float) -> tuple[bool, str]:
    """Return whether the packet came, and else the front of a line that was not understood, or ""."""
    end, front = time.monotonic() + seconds, ""
    while (left := end - time.monotonic()) > 0:
        if port in [packet.port for packet in source.read() if packet]:
            return True, ""
        front = source.hearing()[1] or front
        select.select([source.fileno()], [], [], left)
    return False, front
