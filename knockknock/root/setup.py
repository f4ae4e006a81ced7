"""The set-up: a program that installs our table and the accept rules, reports what it found, and ends.

root.watch runs it as root: at the start, at a reload, to heal, and to remove all. It leaves the policy in force and the
digest of our table to the next one, in a file without a name (memfd_create(2)). Its output is for the daemon; it ends
with 1 if it failed. At the start it prints nothing unless it fails, but becomes the resident helper (root.helper) and
answers as such: so there is no answer before there is a helper to obey.
"""

import contextlib
import fcntl
import os
import socket
import sys
from collections.abc import Callable

from ..errors import FirewallError, KnockError
from . import KERNEL, LANDLOCK, ROOT, landlock, policy, privileges, seccomp
from .firewall import Firewall, shut_for_all
from .netlink import NETFILTER
from .policy import Policy
from .record import DONE, LONGEST_REASON, PLACED, SURVEYED

NOBODY = 65534
"""User and group id of the helper."""
_LONGEST_SURVEY = 20000
"""The most bytes after SURVEYED or PLACED."""
_APART = 512
"""The first descriptor that is out of the way of those that the helper gets."""


class Kept:
    """The state that one set-up leaves to the next."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def firewall(self) -> Firewall:
        """Return the firewall as the last set-up left it. Raises FirewallError."""
        if not os.fstat(self._fd).st_size:
            raise FirewallError("the first set-up did not come to its end")
        digest, _, text = os.pread(self._fd, os.fstat(self._fd).st_size, 0).decode().partition("\n")
        return Firewall(policy.load(text), digest)

    def keep(self, firewall: Firewall) -> None:
        """Leave a firewall to the next set-up."""
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"{firewall.digest}\n{policy.dump(firewall.policy)}".encode(), 0)


def start(chosen: Policy, kept: Kept, control: socket.socket, theirs: int) -> None:
    """Place everything, then become the helper. Raises KnockError, OSError.

    theirs: the descriptor of the helper's end of the pair.
    """
    firewall = Firewall(chosen)
    try:
        said = firewall.prepare().text(chosen)
        if chosen.expected_size != firewall.policy.expected_size:
            said += (
                "; this version of nftables takes no sets of expected values, so every SYN to a knock port is logged: "
                "install 1.0.6 or later"
            )
        answer = DONE + said.encode()[:LONGEST_REASON]
        kept.keep(firewall)
        walls, version = chosen.locked_in, landlock.version()
        control.send(bytes([walls and version > 0]) + (seccomp.helper() if walls else b""))
        _inform(control, firewall, SURVEYED + _late(firewall), answer)
        _be_helper(theirs, landlock.Ruleset(version).fd if walls and version else os.open("/dev/null", os.O_RDONLY))
    except (KnockError, OSError):
        with contextlib.suppress(KnockError):  # the first reason is the one to report
            firewall.remove()
        raise


def reload(fresh: Policy, kept: Kept, control: socket.socket) -> str:
    """Heal, then put another policy in force. Return what was healed, and ports newly shut for all, as text.

    Raises FirewallError.
    """
    firewall = kept.firewall()
    said, before = [firewall.heal(everything=True)], firewall.policy
    if (shut := shut_for_all(fresh)) != shut_for_all(before):
        said.append(shut)
    firewall.follow(fresh)
    kept.keep(firewall)
    try:
        _inform(control, firewall, SURVEYED + _late(firewall), DONE)
    except OSError:
        raise FirewallError("the root helper takes no new policy: restart the daemon") from None
    return "; ".join(filter(None, said))


def heal(kept: Kept, control: socket.socket, everything: bool) -> str:
    """Restore missing rules. Return what was done, or "". everything: others' chains, too. Raises FirewallError."""
    firewall = kept.firewall()
    try:
        said = firewall.heal(everything)
        kept.keep(firewall)
    finally:
        if everything or firewall.anew:
            with contextlib.suppress(OSError):  # healing counts, even if the daemon is not told
                _inform(control, firewall, (PLACED if firewall.anew else SURVEYED) + _late(firewall))
    return said


def _late(firewall: Firewall) -> bytes:
    return "\n".join(firewall.late).encode()[:_LONGEST_SURVEY]


def _inform(control: socket.socket, firewall: Firewall, *answers: bytes) -> None:
    """Send the limits to the helper, with answers to pass on to the daemon. Raises FirewallError, OSError."""
    for answer in answers:
        control.send(policy.message(policy.limits(firewall.policy, answer)), socket.MSG_DONTWAIT)


def _be_helper(theirs: int, walls: int) -> None:
    """Execute the helper in this process. walls: Landlock rules that allow nothing. Raises PrivilegeError, OSError.

    Its user may be unable to read this Python, so it keeps CAP_DAC_OVERRIDE until it has started.
    """
    kernel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETFILTER).detach()
    given = {ROOT: theirs, KERNEL: kernel, LANDLOCK: walls}
    apart = {number: fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _APART) for number, fd in given.items()}
    privileges.become(NOBODY, NOBODY, privileges.NET_ADMIN, privileges.DAC_OVERRIDE)
    for number, fd in apart.items():
        os.dup2(fd, number)
    os.closerange(LANDLOCK + 1, _APART)
    os.chdir("/")
    try:
        os.execv(sys.executable, privileges.program("root.helper"))
    except OSError as error:
        sys.exit(f"knockknock: {sys.executable} cannot be executed as the root helper: {error.strerror}")


def main(read: Callable[[str], Policy] | None = None) -> None:
    """Run one mode. Arguments: mode, configuration, seconds of a trial, descriptors of Kept and the helper's pair.

    Modes: start, reload, remove, heal, and "heal ours", which looks at our own table alone. read: makes a policy of a
    configuration, for `start` and `reload` alone.
    """
    mode, config, trial, *numbers = sys.argv[1:]
    fd, ours, theirs = map(int, numbers)
    kept, control = Kept(fd), socket.socket(fileno=ours)
    said = ""
    try:
        if mode == "start" and read:
            start(read(config)._replace(trial=int(trial)), kept, control, theirs)
        elif mode == "reload" and read:
            said = reload(read(config), kept, control)
        elif mode == "remove":
            kept.firewall().remove()
        else:
            said = heal(kept, control, everything=mode == "heal")
    except (KnockError, OSError) as error:
        print(error, end="")
        sys.exit(1)
    print(said, end="")
