"""Takes a counter, seals a request and sends it as one SYN."""

import contextlib
import os
import pwd
import socket
from collections.abc import Callable, Iterable, Iterator
from time import monotonic_ns, sleep

from ..core import headers
from ..core.headers import Carried
from ..core.profile import Profile as AnyProfile
from ..core.request import Request
from ..errors import ProfileError, SendError
from ..profiles import counters, files
from ..schemes.syn.profile import Profile
from . import route, syn_template
from .raw_socket import BURST, RATE, Knock, open_raw, send


@contextlib.contextmanager
def sender(seconds: float) -> Iterator[Callable[[Knock], None]]:
    """Return a function that sends a knock, by a raw socket or by the sender. Both raise SendError.

    Everything is closed afterwards. seconds: the time from now within which the sender must have answered. Further
    knocks than a server hears at once leave at its rate.
    """
    with contextlib.ExitStack() as stack:
        try:
            raw = open_raw()
        except SendError as error:
            if os.geteuid() == 0:
                raise
            from . import send_client  # imported here, because most have a raw socket

            yield _paced(stack.enter_context(send_client.borrow(str(error), seconds)))
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
    """Return put() with a pause behind each knock from the middle of BURST on, as others may have used up the rest."""
    count = 0

    def one(knock: Knock) -> None:
        nonlocal count
        put(knock)
        count += 1
        if count >= BURST // 2:
            sleep(1 / RATE)

    return one


def check_own(path: str) -> None:
    """Raise ProfileError if others than the user and root may write to a file or a directory, as ssh does."""
    status = os.stat(path)
    if status.st_mode & 0o002 or (status.st_mode & 0o020 and not _is_private(status.st_gid)):
        raise ProfileError(f"{path} may be written by others, who could change what you knock with: chmod go-w {path}")
    if os.geteuid() and status.st_uid not in (os.geteuid(), 0):
        raise ProfileError(f"{path} belongs to user {status.st_uid}, not to you: chown it, or enroll anew")


def _is_private(gid: int) -> bool:
    """Return True if a group has no member but the user, as on Debian, where the umask may therefore be 002."""
    import grp  # seldom needed

    try:
        members, me = grp.getgrgid(gid).gr_mem, pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return False
    return {*members, *(user.pw_name for user in pwd.getpwall() if user.pw_gid == gid)} <= {me}


def check_profile(directory: str) -> None:
    """Call check_own() for a profile's directory and all that is in it."""
    check_own(directory)
    for file in sorted(os.listdir(directory)):
        with contextlib.suppress(FileNotFoundError):  # another knock has replaced the counter since
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
                return files.load_profile(directory)
    from ..profiles import legacy  # as above

    known = sorted(files.names(profiles))
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
    """Yield one knock after the other, each with a counter of its own that is durably used up before.

    The profile stays locked until the next knock is asked for, so knocks leave in their order.

    directory: of the profile. address: family and destination. dry: leave the counter as it is, for knocks that are
    shown and never sent. seen_from: the source address that the server sees, of the same family, if it is not the
    kernel's choice; behind NAT it is not this machine's. end: as for counters.taking(). Raises CounterError, SendError.
    """
    from ..schemes.syn import seal  # imported here, because not every knock is encrypted

    if profile.expires is not None:
        from ..core import dates
        from ..profiles import clock  # imported here, because most never expire

        if profile.expires <= clock.seconds():
            raise ProfileError(
                f"the profile {profile.name} expired on {dates.show(profile.expires)} and opens nothing: "
                "ask for a new one (on the server: knockknock-genprofile rotate NAME)"
            )
    family, destination = address
    like = syn_template.unsent(family, destination, profile.knock_port, seen_from)
    source = like.source
    if seen_from and not profile.bind_source and not route.same(family, source, seen_from):
        raise SendError(
            f"{seen_from} is not an address of this machine, and the profile does not bind the source: leave it out"
        )
    kernels = syn_template.kernel_syn(family, like.mtu - (40 if family == socket.AF_INET else 60))
    ends = route.packed(family, source), route.packed(family, destination)
    headers.knock(kernels, *ends, 0, seal.carry(profile.format, bytes(10)))  # a failure comes before a counter is taken
    bound = route.packed(family, seen_from) if seen_from else ends[0]
    time = 0
    if profile.clock:
        from ..profiles import clock  # imported here, because most count their knocks

        time = clock.seconds()
    for offset, request in enumerate(requests):
        like = like if offset == 0 else syn_template.unsent(family, destination, profile.knock_port, seen_from)
        began = monotonic_ns()
        sent = False
        while not sent:
            looked = contextlib.nullcontext(counters.next_counter(directory, offset, time)) if dry else None
            with looked or counters.taking(directory, time, end) as counter:
                fields: Carried = seal.carry(profile.format, seal.seal(profile, counter, request, bound))
                # A raw IPv4 socket puts an identification of its own where it finds 0 (raw(7)).
                if sent := bool(fields.ident or family == socket.AF_INET6 or dry):
                    stamp = (
                        like.timestamp + (monotonic_ns() - began) // 1_000_000 & 0xFFFFFFFF
                    )  # the lock may have taken a while
                    made = headers.like(kernels, like.port, like.hops, stamp)
                    packet = headers.knock(made, *ends, profile.knock_port, fields, syn_template.label())
                    yield Knock(packet, destination, request, counter, source)
