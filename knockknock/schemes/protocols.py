"""The interface that each scheme implements.

docs/DESIGN.md, "How to add a scheme", describes the modules that have it.
"""

from collections.abc import Hashable, Iterable, Mapping
from typing import Protocol, TypeVar

from ..core.events import Event
from ..core.ini import Keys
from ..core.packet import Packet
from ..core.profile import Profile, Settings
from ..core.request import Verb
from .values import Next, Sending

P = TypeVar("P", bound=Profile)
"""The profiles of one scheme."""
M_co = TypeVar("M_co", covariant=True)
"""The memory of a profile's used knocks: a counter, for example."""
P_contra = TypeVar("P_contra", bound=Profile, contravariant=True)
M_contra = TypeVar("M_contra", contravariant=True)


class Listener(Protocol[P_contra, M_contra]):
    """Recognises the knocks of all profiles of one scheme. Pure: no I/O, no clock."""

    settings: Settings

    def add(self, profile: P_contra, memory: M_contra | None) -> None:
        """Add a profile, or replace the one of its name.

        memory: the result of Scheme.recall(); None keeps that of the replaced profile.
        """

    def remove(self, name: str) -> None:
        """Remove a profile. Raises KeyError if there is none of that name."""

    def move(self, clock: int) -> None:
        """Set the time of day, in seconds since 1970."""

    def next(self, name: str) -> Next | None:
        """The fields of a profile's next knocks, None if not listable. May raise KeyError for an unknown name."""

    def hear(self, packet: Packet, now: float) -> Event | None:
        """The event of a packet to a knock port, None if there is none. now: seconds on a monotonic clock."""


class Scheme(Protocol[P, M_co]):
    """The interface of a scheme's module `profile`. All of it is pure."""

    KEYS: Keys
    """The keys that a profile's config may have besides `scheme`."""
    SECRETS: tuple[str, ...]
    """The key files of a profile: `mac_key` is a field of the profile and the file mac.key. If empty, the config itself
    is the secret, and others may not read it."""

    KEY: str
    """The form of a valid secret, for messages about one in a database."""

    def read_key(self, text: str, where: str) -> bytes:
        """Return the secret in the text of its file. Raises ProfileError, which does not show the text."""

    def write_key(self, key: bytes) -> str:
        """The text that read_key() reads back."""

    RAW: bool
    """True if a knock needs a raw socket; otherwise sends() makes its packets, for any program to send."""
    BOUND: bool
    """True if sends() depends on the source, so that a client behind NAT may name one. Not read if RAW."""

    def parse(self, values: Mapping[str, object], where: str) -> P:
        """Return a profile without name and keys from its config's values. Raises ConfigError, which names `where`."""

    def complete(self, draft: P, text: str, where: str) -> P:
        """Return a profile completed by the text of its file. Raises ConfigError. Not called if `file` is empty."""

    def listing(self, profile: P) -> str:
        """The text of a profile's file, which complete() reads back."""

    def write(self, profile: P) -> Iterable[str]:
        """The lines of a config that parse() reads back, without `scheme`."""

    def unshared(self, profile: P) -> Iterable[Hashable]:
        """The secrets that no other profile may have, because each of them would accept the same knock once."""

    def first(self, profile: P) -> str | None:
        """The memory of an unused profile, as text for the state directory; None if it needs none."""

    def recall(self, profile: P, text: str | None, where: str, latest: int) -> M_co:
        """Return the memory for Listener.add(). Raises CounterError, ProfileError.

        text: of the file in the state directory, None without one. latest: a time above every client's clock, in
        seconds since 1970.
        """

    def counter(self, profile: P) -> str | None:
        """The first counter of a client, as the text of its file; None if clients keep none."""

    def sends(self, profile: P, verb: Verb, counter: int, source: bytes, clock: int) -> list[Sending]:
        """The packets of a knock, in order. Raises KnockError. Not called if RAW.

        counter: 0 if the scheme has none. source: the address that the server will see. clock: seconds since 1970, UTC.
        """
