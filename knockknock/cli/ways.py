"""Sends a knock by raw SYNs or by ordinary sockets, as the profile's scheme takes."""

import argparse
from collections.abc import Callable

from .. import client, route
from ..errors import SendError
from ..request import PROTOCOL_NAMES, Request
from ..schemes import Profile
from ..schemes.synprofile import Profile as SynProfile

Send = Callable[[client.Knock], None]
Knocker = Callable[[tuple[int, str]], str]
"""Knocks at an address, and gives back the one that it knocked from."""


def by_connects(
    options: argparse.Namespace, profiles: str, profile: Profile, wanted: list[Request], end: float
) -> Knocker:
    """Knocks by what any program may send. end: as counters.taking() has it."""
    if options.explain or options.pcap:
        raise SendError(f"a knock by {profile.kind} is made by the kernel: --dry-run shows what is to be sent")
    from .. import plain  # imported here, as most send encrypted SYNs

    def knock(address: tuple[int, str]) -> str:
        asked = options.source or ""
        leaves = plain.leaves(profile, address, asked)
        seen = route.packed(address[0], asked or leaves)
        place = f"{profiles}/{profile.name}"
        with plain.packets(place, profile, wanted[0].verb, seen, dry=options.dry_run, end=end) as found:
            if options.dry_run:
                print(
                    *(f"{PROTOCOL_NAMES[one.protocol]}/{one.port} {one.payload.decode()}".rstrip() for one in found),
                    sep="\n",
                )
                return ""
            plain.knock(found, address, leaves if asked else "")
        return leaves

    return knock


def by_raw_socket(
    options: argparse.Namespace, profiles: str, profile: Profile, wanted: list[Request], send: Send | None, end: float
) -> tuple[Knocker, str]:
    """Knocks by encrypted SYNs, and what to say if nothing opens. end: as counters.taking() has it."""
    assert isinstance(profile, SynProfile)
    one_profile = profile
    show = None
    if options.dry_run or options.explain or options.pcap:
        from .show import shower  # imported here, as it takes longer than all the rest

        show = shower(options)

    def knock(address: tuple[int, str]) -> str:
        source = ""
        for one in client.prepare(
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
