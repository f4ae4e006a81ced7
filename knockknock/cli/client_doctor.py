"""Checks what a knock needs on this machine, for knockknock --doctor HOST; sends nothing and uses up no counter."""

import contextlib
import fcntl
import ipaddress
import os
import socket
import stat
import struct
import sys

from .. import schemes
from ..client import host_config, ordinary_sockets, raw_socket, route, send_client
from ..client.knock import find_any, prepare
from ..core import dates
from ..core.profile import Profile as AnyProfile
from ..core.request import PROTOCOL_NAMES, Request, Verb
from ..errors import KnockError, SendError
from ..profiles import clock, counters
from ..schemes.syn.profile import Profile
from . import nat64
from .knock_options import Options

CARRIED = {
    "compact": "the IP ID (in IPv6 the flow label), the sequence number and the window",
    "stealth": "the IP ID (in IPv6 the flow label), the sequence number and the TCP timestamp",
    "classic": "the IP ID (in IPv6 the flow label), the sequence number, the acknowledgment number and the window",
}
CLAT = ipaddress.ip_network("192.0.0.0/29")
SLIRP = ipaddress.ip_network("10.0.2.0/24")
"""Networks that slirp4netns and QEMU's user network give to their guests; the second address is the gateway's."""
NEAR = 1280
"""Bytes; a smaller MTU is a tunnel's (RFC 8200 section 5)."""
_IFF_TUN, _SIOCGIFADDR = 1, 0x8915
"""include/uapi/linux: if_tun.h, sockios.h."""


class Doctor:
    """Prints findings, and remembers whether one was bad."""

    def __init__(self) -> None:
        self.bad = False

    def good(self, text: str) -> None:
        print(f"ok:   {text}")

    def note(self, text: str) -> None:
        print(f"note: {text}")

    def wrong(self, text: object) -> None:
        self.bad = True
        print(f"bad:  {text}")


def command(options: Options) -> None:
    """Check everything. Raises KnockError if something is bad."""
    doctor = Doctor()
    allowed, how = raw()
    home = raw_socket.become_invoker()
    place = f"{home}/.knockknock"
    name, names = options.host, [options.host]
    if os.path.isfile(f"{place}/config"):
        try:
            found = _settings(options, place)
            doctor.good(f"{place}/config can be read")
            name = found.host_name or name
            names = [found.profile] if found.profile else [options.host, name]
        except KnockError as error:
            doctor.wrong(error)
    profile = None
    try:
        profile = find_any(place, *names)
    except KnockError as error:
        doctor.wrong(error)
    if profile and not schemes.load(profile.scheme).RAW:
        doctor.good(f"a knock by {profile.kind} needs no raw socket")
    else:
        (doctor.good if allowed else doctor.wrong)(how)
    if profile:
        of_profile(doctor, f"{place}/{profile.name}", profile)
    try:
        addresses = route.within(nat64.PATIENCE, lambda: route.addresses(name, options.family or socket.AF_UNSPEC))
    except SendError as error:
        doctor.wrong(error)
    else:
        doctor.good(f"{name} is {', '.join(address for _, address in addresses)}")
        translated = _translated(doctor, addresses)
        for address in addresses:
            way(doctor, options, f"{place}/{profile.name}" if profile else "", profile, address, translated)
    if isinstance(profile, Profile):
        path(doctor, profile)
    if doctor.bad:
        sys.stdout.flush()
        raise KnockError("not all is well, see above")


def _settings(options: Options, place: str) -> host_config.Host:
    from .host_settings import configure

    return configure(options, f"{place}/config")


def raw() -> tuple[bool, str]:
    """Return whether a raw packet may be sent, and how, or why not, as text."""
    try:
        for one in raw_socket.open_raw().values():
            one.close()
        return True, f"a raw socket is allowed ({'root' if os.geteuid() == 0 else 'a capability'})"
    except SendError as error:
        reason = str(error)
    try:
        near = send_client.by_socket()
    except SendError as error:
        return False, str(error)
    if near:
        near.close()
        return True, f"no raw socket here, but knocks are sent by systemd ({send_client.SOCKET})"
    if send_client.sudo_may(5):
        return True, "no raw socket here, but sudo sends knocks without a password"
    return False, reason


def of_profile(doctor: Doctor, directory: str, profile: AnyProfile) -> None:
    """Check files, expiry, clock and counter."""
    status = os.stat(directory)
    secret = ("cipher.key", "mac.key") if isinstance(profile, Profile) else os.listdir(directory)
    if status.st_mode & 0o022 or status.st_uid not in (os.geteuid(), 0):
        doctor.wrong(f"others may write in {directory}: chmod 700 {directory}")
    elif any(os.stat(f"{directory}/{file}").st_mode & stat.S_IRWXG for file in secret):
        doctor.wrong(f"a group may read the keys in {directory}: chmod -R go= {directory}")
    else:
        doctor.good(f"{directory} can be read, and only by you")
    now = clock.seconds()
    if not isinstance(profile, Profile):
        doctor.good(f"the clock says {dates.show(now)}")
        return
    if profile.expires is not None and profile.expires <= now:
        doctor.wrong(f"the profile expired on {dates.show(profile.expires)}: ask for a new one")
    counted = profile.clock or profile.expires is not None
    doctor.good(f"the clock says {dates.show(now)}{', which this profile goes by' if counted else ''}")
    try:
        counter = counters.next_counter(directory, 0, now if profile.clock else 0)
        doctor.good(f"the next counter is {counter}")
        if profile.clock and counter > now + 1:
            doctor.wrong(f"the clock was set back: knocks were counted up to {dates.show(counter - 1)}")
        if not os.access(directory, os.W_OK):
            doctor.wrong(f"{directory} cannot be written, so no counter can be used up")
    except KnockError as error:
        doctor.wrong(error)


def _translated(doctor: Doctor, addresses: list[tuple[int, str]]) -> list[ipaddress.IPv6Network]:
    """Return the NAT64 prefixes, if an address could be in one."""
    if all(family == socket.AF_INET for family, _ in addresses):
        return []
    try:
        return nat64.nat64()
    except SendError as error:
        doctor.note(f"whether IPv6 is translated on the way (NAT64) is not known: {error}")
        return nat64.WELL_KNOWN


def way(
    doctor: Doctor,
    options: Options,
    directory: str,
    profile: AnyProfile | None,
    address: tuple[int, str],
    translated: list[ipaddress.IPv6Network],
) -> None:
    """Check the route, the source address, and the packet that would leave to one address.

    translated: the NAT64 prefixes.
    """
    family, destination = address
    port = next(iter(profile.knock_ports))[1] if profile else 1
    try:
        source, mtu, _ = route.find(family, destination, port, options.source or "")
    except SendError as error:
        (doctor.note if options.family is None else doctor.wrong)(str(error))
        return
    doctor.good(f"to {destination} there is a way, from {source}, MTU {mtu}")
    bare = destination.partition("%")[0]
    if ipaddress.ip_address(source.partition("%")[0]).is_private and ipaddress.ip_address(bare).is_global:
        text = f"{source} is a private address, so the server sees another one (NAT)"
        if profile and _bound(profile) and not options.source:
            doctor.wrong(f"{text}, and the profile binds the source: say --source with the one that it sees")
        else:
            doctor.note(text)
    if anew := _made_anew(source, bare, translated):
        remade = f"{anew}: packets are made anew on the way, without what an encrypted SYN carries"
        if profile is None or isinstance(profile, Profile):
            doctor.wrong(f"{remade}; take a profile by --sequence or --scheme otp (knockknock-genprofile(8))")
        else:
            doctor.note(remade)
    if device := _tun(source):
        doctor.note(
            f"packets leave by {device}, a tun device: a program behind it may make them anew; if knocks by it are "
            "refused, take a profile by --sequence or --scheme otp (knockknock-genprofile(8))"
        )
    if mtu < NEAR:
        doctor.note(
            f"an MTU of {mtu} is a tunnel's: one that ends connections (a proxy) makes SYNs of its own, no knocks"
        )
    if profile and not isinstance(profile, Profile):
        _without_raw(doctor, directory, profile, options.source or source)
    if not isinstance(profile, Profile):
        return
    asked = [Request(Verb.OPEN, protocol, number) for protocol, number in options.ports or ()]
    if wrong := [one for one in asked if not profile.permits(one)]:
        doctor.wrong(f"the profile may not {wrong[0]}; it may: {', '.join(map(str, profile.ports))}")
        return
    first = profile.ports[0]
    asked = asked[:1] or [Request(Verb.OPEN, first.protocol, first.first)]
    try:
        for knock in prepare(directory, profile, asked, address, dry=True, seen_from=options.source or ""):
            doctor.good(f"{knock.request}, counter {knock.counter}, would leave as {fields(knock.packet, port)}")
    except KnockError as error:
        doctor.wrong(error)


def _made_anew(source: str, destination: str, translated: list[ipaddress.IPv6Network]) -> str:
    """Return the translator or user-mode network that builds each packet anew, by its addresses; "" if none is seen."""
    one, other = ipaddress.ip_address(source.partition("%")[0]), ipaddress.ip_address(destination)
    if one in CLAT:
        return f"{one} is the address of a translator (464XLAT, RFC 7335)"
    if one in SLIRP and f"{SLIRP[2]}" in _gateways():
        return f"{one} is behind a user-mode network (slirp)"
    if any(other in prefix for prefix in translated):
        return f"{other} is IPv4 behind a translator (NAT64, RFC 6052)"
    return ""


def _tun(source: str) -> str:
    """Return the tun device that has an address, "" if none has it (Documentation/networking/tuntap.rst)."""
    packed = ipaddress.ip_address(source.partition("%")[0]).packed
    for _, name in socket.if_nameindex():
        with contextlib.suppress(OSError, ValueError), open(f"/sys/class/net/{name}/tun_flags") as file:
            if int(file.read(), 16) & _IFF_TUN and packed in _addresses(name):
                return name
    return ""


def _addresses(name: str) -> list[bytes]:
    """Return the first IPv4 address of a device, and its IPv6 addresses."""
    found = []
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        found.append(fcntl.ioctl(probe, _SIOCGIFADDR, struct.pack("40s", name.encode()))[20:24])
    with contextlib.suppress(OSError), open("/proc/net/if_inet6") as file:
        found += [bytes.fromhex(words[0]) for words in map(str.split, file) if words[5] == name]
    return found


def _gateways() -> list[str]:
    """Return the IPv4 gateways of this machine's routes."""
    with contextlib.suppress(OSError), open("/proc/net/route") as file:
        fields = [line.split() for line in file.readlines()[1:]]
        return [socket.inet_ntoa(bytes.fromhex(field[2])[::-1]) for field in fields]
    return []


def _bound(profile: AnyProfile) -> bool:
    """Return True if a knock is good from one address only."""
    return profile.bind_source if isinstance(profile, Profile) else schemes.load(profile.scheme).BOUND


def _without_raw(doctor: Doctor, directory: str, profile: AnyProfile, source: str) -> None:
    """Return the packets that would leave, for a scheme without raw sockets; use nothing up."""
    bare = source.partition("%")[0]
    try:
        with ordinary_sockets.packets(
            directory, profile, Verb.OPEN, route.packed(route.family_of(bare), bare), dry=True
        ) as found:
            ports = ", ".join(f"{PROTOCOL_NAMES[one.protocol]}/{one.port}" for one in found)
            doctor.good(f"{len(found)} packet(s) would leave, to {ports}")
    except KnockError as error:
        doctor.wrong(error)


def fields(packet: bytes, port: int) -> str:
    """Return the fields of a SYN that can carry a knock; packet: from the IP header on, without IP options."""
    start = 20 if packet[0] >> 4 == 4 else 40
    if start == 20:
        ident = f"IP ID {int.from_bytes(packet[4:6], 'big'):#x}"
    else:
        ident = f"flow label {int.from_bytes(packet[0:4], 'big') & 0xFFFFF:#x}"
    sequence, acknowledgment = struct.unpack_from("!II", packet, start + 4)
    window = int.from_bytes(packet[start + 14 : start + 16], "big")
    return f"a SYN to port {port}: {ident}, sequence {sequence}, acknowledgment {acknowledgment}, window {window}"


def path(doctor: Doctor, profile: Profile) -> None:
    """Print what may happen to packets on the way, which only the other end can see."""
    doctor.note(
        f"format {profile.format} is carried in {CARRIED[profile.format]}. Where something on the way writes one of "
        "them anew (NAT and firewalls that number packets themselves, proxies, some VPNs), the server logs 'refused "
        "unknown', or nothing; run knockknock-daemon doctor there, knock, and it names the field"
    )
