"""Sends a knock by raw SYNs or by ordinary sockets, depending on the profile's scheme."""

from collections.abc import Callable

from ..client import raw_socket, route
from ..client.knock import prepare
from ..core.profile import Profile
from ..core.request import PROTOCOL_NAMES, Request
from ..errors import SendError
from ..schemes.syn.profile import Profile as SynProfile
from .knock_options import Options

Send = Callable[[raw_socket.Knock], None]
Knocker = Callable[[tuple[int, str]], str]
"""Knocks at an address, and returns the source address."""


def by_connects(options: Options, profiles: str, profile: Profile, wanted: list[Request], end: float) -> Knocker:
    """Return a function that knocks by ordinary sockets. end: as for counters.taking()."""
    if options.explain or options.pcap:
        raise SendError(f"a knock by {profile.kind} is made by the kernel: --dry-run shows what is to be sent")
    from ..client import ordinary_sockets  # imported here, because most send encrypted SYNs

    def knock(address: tuple[int, str]) -> str:
        asked = options.source or ""
        leaves = ordinary_sockets.leaves(profile, address, asked)
        seen = route.packed(address[0], asked or leaves)
        place = f"{profiles}/{profile.name}"
        with ordinary_sockets.packets(place, profile, wanted[0].verb, seen, dry=options.dry_run, end=end) as found:
            if options.dry_run:
                print(
                    *(f"{PROTOCOL_NAMES[one.protocol]}/{one.port} {one.payload.decode()}".rstrip() for one in found),
                    sep="\n",
                )
                return ""
            ordinary_sockets.knock(found, address, leaves if asked else "")
        return leaves

    return knock


def by_raw_socket(
    options: Options, profiles: str, profile: Profile, wanted: list[Request], send: Send | None, end: float
) -> tuple[Knocker, str]:
    """Return a function that knocks by encrypted SYNs, and a hint for messages if nothing opens.

    end: as for counters.taking().
    """
    assert isinstance(profile, SynProfile)
    one_profile = profile
    show = None
    if options.dry_run or options.explain or options.pcap:
        from .dry_run import shower  # imported here, because it takes longer than all the rest

        show = shower(options)

    def knock(address: tuple[int, str]) -> str:
        source = ""
        for one in prepare(
            f"{profiles}/{one_profile.name}",
            one_profile,
            wanted,
            address,
            dry=options.dry_run,
            seen_from=options.source or "",
            end=end,
        ):
            source = one.source
            if show:
                show(one)
            if send:
                send(one)
        return source

    bound = "; the profile binds the source: if there is NAT in between, say --source"
    return knock, bound if profile.bind_source else ""
