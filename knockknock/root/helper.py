"""The process that keeps root: a fixed-size record in, one element in a kernel set out.

Started by privsep as a program of its own, with one end of a SOCK_SEQPACKET pair as standard input. It has its policy
from root's own files (knockknock.policy), never from the other side. What that does not allow is refused with an
answer, because a packet can make the daemon ask for it. What is no record at all ends it: an intruder alone sends such.
Rules of ours that somebody else takes away are placed again (root.watch). When the pair closes it takes away what it
placed, and ends.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time

from ..errors import FirewallError, GrantError, KnockError
from ..grant import DONE, FAILED, LONGEST_REASON, Order, pack_count, pack_doors, unpack
from . import RUN, legacy, policy, privileges, route, watch
from .firewall import Firewall


def read_policy(config: str) -> policy.Policy:
    """What root's own files allow now. Raises KnockError with the sentence of the process that reads them."""
    package = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    command = [sys.executable, "-I", "-c", RUN.format(module="knockknock.policy"), package, config]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    except PermissionError:
        raise FirewallError(
            f"{sys.executable} is in a directory that others may not enter, and what keeps root has given up the right "
            "to: install knockknock elsewhere, not in a home"
        ) from None
    if done.returncode:
        raise KnockError(done.stderr.strip().rpartition("\n")[2])
    return policy.load(done.stdout)


def serve(pair: socket.socket, rules: watch.Watch, firewall: Firewall, config: str, limits: policy.Policy) -> None:
    """Obey records until the pair closes. Raises GrantError for the first that is none."""
    meter = policy.Meter()
    while record := rules.record(firewall):
        grant, answer = unpack(record), DONE
        try:
            limits.check(grant)
            if grant.order is Order.RELOAD:
                fresh = read_policy(config)
                rules.heal(firewall)
                firewall.follow(fresh)
                limits = fresh
            elif grant.order is Order.CLOSE:
                firewall.close(grant)
            elif grant.order is Order.BLOCK:
                route.refuse_own(grant.address)
                firewall.block(grant)
            elif grant.order is Order.STATUS:
                found = [door for door in firewall.status() if grant.address in (b"", door.address)]
                answer += pack_doors(found)
            elif grant.order is Order.LOGGED:
                answer += pack_count(firewall.logged())
            else:
                route.refuse_own(grant.address)
                meter.admit(limits.doors_per_minute, time.monotonic())
                firewall.open(grant)
                answer += ", ".join(firewall.late(grant)).encode()[:LONGEST_REASON]
        except (KnockError, OSError) as error:
            answer = FAILED + str(error).encode()[:LONGEST_REASON]
        with contextlib.suppress(BlockingIOError):  # one that asks and does not listen holds nothing up
            pair.send(answer, socket.MSG_DONTWAIT)


def main() -> None:
    """The arguments are the path of the configuration and, for a trial, its seconds."""
    for number in (numbers := (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)):
        signal.signal(number, signal.SIG_IGN)  # the pair alone says when to stop
    signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)  # held back until here
    pair = socket.socket(fileno=0)
    with contextlib.ExitStack() as cleanup:
        try:
            privileges.no_core()
            privileges.no_more()
            privileges.keep({privileges.NET_ADMIN, privileges.NET_RAW, privileges.SETPCAP})
            limits = read_policy(sys.argv[1])._replace(trial=int(sys.argv[2]))
            firewall = Firewall(limits)
            rules = watch.Watch(pair)
            cleanup.callback(firewall.remove)
            summary = firewall.prepare().text(limits)
            # Legacy iptables is asked through a raw socket: to heal and to remove rules, too.
            raw = {privileges.NET_RAW} if legacy.tables() else set()
            privileges.keep({privileges.NET_ADMIN} | raw)
        except (KnockError, OSError) as error:
            pair.send(FAILED + str(error).encode())
            sys.exit(1)
        try:
            pair.send(DONE + summary.encode()[:LONGEST_REASON])
            serve(pair, rules, firewall, sys.argv[1], limits)
        except (GrantError, OSError) as error:
            sys.exit(f"knockknock: root helper stops: {error}")
