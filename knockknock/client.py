"""Takes a counter, seals a request, sends one SYN."""

import contextlib
import os
import pwd
import socket
from collections.abc import Callable, Iterable, Iterator
from time import monotonic_ns, sleep
from typing import NamedTuple

from . import counters, route, store, tcpip, template
from .errors import ProfileError, SendError
from .request import Request
from .schemes import Carried
from .schemes import Profile as AnyProfile
from .schemes.synprofile import Profile

RATE, BURST = 20, 40
"""SYNs a second, and at once, that a server hears of one source (root.PER_SOURCE), and `--send` sends of one user."""
_IPV6_HDRINCL = 36
"""include/uapi/linux/in6.h"""


class Knock(NamedTuple):
    """One packet, ready to leave."""

    packet: bytes
    """From the IP header on."""
    destination: str
    request: Request
    counter: int
    source: str
    """The address of this machine that it leaves from, and that the connection must leave from too."""


def open_raw(user: int = -1) -> dict[int, socket.socket]:
    """Raw sockets by address family, as many families as this machine has. Raises SendError if we may not.

    user: whose they are, when root opens them: what they send is routed like that user's connections (ip-rule(8),
    uidrange). -1: of the user who has called sudo.
    """
    if os.geteuid() == 0 and user < 0:
        invoker = os.environ.get("SUDO_UID", "")
        user = int(invoker) if invoker.isdecimal() and len(invoker) < 10 else -1
    found: dict[int, socket.socket] = {}
    for family, level, option in (
        (socket.AF_INET, socket.IPPROTO_IP, socket.IP_HDRINCL),
        (socket.AF_INET6, socket.IPPROTO_IPV6, _IPV6_HDRINCL),
    ):
        try:
            raw = socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW)
            raw.setsockopt(level, option, 1)
            if user >= 0:  # the unit of --send would be killed for the call
                os.fchown(raw.fileno(), user, -1)
            found[family] = raw
        except PermissionError:
            raise SendError(
                "you may not send a knock from here, it takes a raw socket (the capability net_raw): run it with sudo, "
                "or have it sent for you (see README, Without sudo)"
            ) from None
        except OSError:
            continue  # a kernel without this family
    return found


@contextlib.contextmanager
def sender(seconds: float) -> Iterator[Callable[[Knock], None]]:
    """Return what sends a knock: a raw socket, or the sender. Raises SendError, and so does what it returns.

    Nothing of it is left afterwards. seconds: in which somebody else must have answered, counted from now. More knocks
    than a server hears at once leave at its rate.
    """
    with contextlib.ExitStack() as stack:
        try:
            raw = open_raw()
        except SendError as error:
            if os.geteuid() == 0:
                raise
            from . import rawsend  # imported here, as who has a raw socket needs no other

            yield _paced(stack.enter_context(rawsend.borrow(str(error), seconds)))
            return
        for one in raw.values():
            stack.enter_context(one)

        def put(knock: Knock) -> None:
            version = knock.packet[0] >> 4
            family = socket.AF_INET if version == 4 else socket.AF_INET6
            if family not in raw:
                raise SendError(f"this kernel has no raw sockets for IPv{version}")
            send(raw[family], knock)

        yield _paced(put)


def _paced(put: Callable[[Knock], None]) -> Callable[[Knock], None]:
    """The same, which waits behind each knock from the middle of BURST on: others may have used up the rest."""
    count = 0

    def one(knock: Knock) -> None:
        nonlocal count
        put(knock)
        count += 1
        if count >= BURST // 2:
            sleep(1 / RATE)

    return one


def become_invoker() -> str:
    """Give up the root that sudo gave, for good; return the user's home directory. Raises SendError."""
    invoker = os.environ.get("SUDO_UID") or "0"
    if os.geteuid() != 0 or invoker == "0":
        return os.path.expanduser("~")
    try:
        user = pwd.getpwuid(int(invoker))
    except (ValueError, KeyError):
        raise SendError(f"root cannot be given up: SUDO_UID={invoker} is no user of this machine") from None
    from . import legacy  # without sudo there is nothing to look for

    legacy.look()
    os.initgroups(user.pw_name, user.pw_gid)
    os.setresgid(user.pw_gid, user.pw_gid, user.pw_gid)
    os.setresuid(user.pw_uid, user.pw_uid, user.pw_uid)
    if os.getresuid() != (user.pw_uid,) * 3 or os.getresgid() != (user.pw_gid,) * 3:
        raise SendError("root could not be given up")
    return user.pw_dir


def check_own(path: str) -> None:
    """Raises ProfileError if others than the user and root may write to a file or a directory, as ssh does."""
    status = os.stat(path)
    if status.st_mode & 0o002 or (status.st_mode & 0o020 and not _is_private(status.st_gid)):
        raise ProfileError(f"{path} may be written by others, who could change what you knock with: chmod go-w {path}")
    if os.geteuid() and status.st_uid not in (os.geteuid(), 0):
        raise ProfileError(f"{path} belongs to user {status.st_uid}, not to you: chown it, or enroll anew")


def _is_private(gid: int) -> bool:
    """Return whether a group has no member but the user, as on Debian, where the umask may therefore be 002."""
    import grp  # seldom needed

    try:
        members, me = grp.getgrgid(gid).gr_mem, pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return False
    return {*members, *(user.pw_name for user in pwd.getpwall() if user.pw_gid == gid)} <= {me}


def check_profile(directory: str) -> None:
    """The same for a profile and all that is in it."""
    check_own(directory)
    for file in sorted(os.listdir(directory)):
        with contextlib.suppress(FileNotFoundError):  # a counter that another knock has put in place since
            check_own(f"{directory}/{file}")


def find_profile(profiles: str, host: str, *others: str) -> Profile:
    """Find a profile as find_any() does, for callers that can send encrypted SYNs only."""
    found = find_any(profiles, host, *others)
    if not isinstance(found, Profile):
        raise ProfileError(f"{profiles}/{found.name}: only the command knockknock can knock by {found.kind}")
    return found


def find_any(profiles: str, host: str, *others: str) -> AnyProfile:
    """The profile of a host, in a directory of profiles by host name. Raises ProfileError, ConfigError.

    others: further names that the profile may have.
    """
    for name in (host, *others):
        for directory in (f"{profiles}/{name}", f"{profiles}/{name.rstrip('.').lower()}"):
            if name and "/" not in name and not name.startswith(".") and os.path.isdir(directory):
                check_own(profiles)
                check_profile(directory)
                return store.load_profile(directory)
    from . import legacy  # as above

    known = sorted(store.names(profiles))
    way_out = legacy.way_out(profiles, host if known else "") or "Mint one on the server with knockknock-genprofile"
    raise ProfileError(f"there is no profile {profiles}/{host}; there are: {', '.join(known) or 'none'}. {way_out}")


def prepare(
    directory: str,
    profile: Profile,
    requests: Iterable[Request],
    address: tuple[int, str],
    *,
    dry: bool,
    seen_from: str = "",
    end: float | None = None,
) -> Iterator[Knock]:
    """One knock after the other, each with a counter of its own that is durably used up before it is yielded.

    Nobody else takes a counter of the profile until the next knock is asked for: so knocks leave in their order.

    directory: of the profile. address: family and destination. dry: leave the counter as it is, for knocks that are
    looked at and never sent. seen_from: the source address that the server will see, of the same family, if that is not
    the one that the kernel would choose; behind NAT it is not this machine's. end: as counters.taking() has it. Raises
    CounterError, SendError.
    """
    from .schemes import syn  # imported here, as not every knock is encrypted

    if profile.expires is not None:
        from . import clock, moment  # imported here, as most never expire

        if profile.expires <= clock.seconds():
            raise ProfileError(
                f"the profile {profile.name} expired on {moment.show(profile.expires)} and opens nothing: "
                "ask for a new one (on the server: knockknock-genprofile --rotate)"
            )
    family, destination = address
    like = template.unsent(family, destination, profile.knock_port, seen_from)
    source = like.source
    if seen_from and not profile.bind_source and not route.same(family, source, seen_from):
        raise SendError(
            f"{seen_from} is not an address of this machine, and the profile does not bind the source: leave it out"
        )
    kernels = template.kernel_syn(family, like.mtu - (40 if family == socket.AF_INET else 60))
    ends = route.packed(family, source), route.packed(family, destination)
    tcpip.knock(kernels, *ends, 0, syn.carry(profile.format, bytes(10)))  # what fails, fails before a counter is taken
    bound = route.packed(family, seen_from) if seen_from else ends[0]
    time = 0
    if profile.clock:
        from . import clock  # imported here, as most count their knocks

        time = clock.seconds()
    for offset, request in enumerate(requests):
        like = like if offset == 0 else template.unsent(family, destination, profile.knock_port, seen_from)
        began = monotonic_ns()
        sent = False
        while not sent:
            looked = contextlib.nullcontext(counters.next_counter(directory, offset, time)) if dry else None
            with looked or counters.taking(directory, time, end) as counter:
                fields: Carried = syn.carry(profile.format, syn.seal(profile, counter, request, bound))
                # A raw IPv4 socket puts an identification of its own where it finds 0 (raw(7)).
                if sent := bool(fields.ident or family == socket.AF_INET6 or dry):
                    stamp = like.timestamp + (monotonic_ns() - began) // 1_000_000 & 0xFFFFFFFF  # a lock was waited for
                    made = tcpip.like(kernels, like.port, like.hops, stamp)
                    packet = tcpip.knock(made, *ends, profile.knock_port, fields, template.label())
                    yield Knock(packet, destination, request, counter, source)


def send(raw: socket.socket, knock: Knock) -> None:
    """Put a knock on the wire. Raises SendError."""
    with contextlib.suppress(OSError):  # so that it is routed by its source, as the connection will be (ip-rule(8))
        raw.bind(route.end(knock.source, 0))
    try:
        raw.sendto(knock.packet, route.end(knock.destination, 0))
    except OSError as error:
        raise SendError(f"the knock to {knock.destination} could not be sent: {error.strerror}") from None
