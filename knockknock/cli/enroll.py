"""Makes a profile of a pasted enrolment line, whole or not at all, for knockknock --enroll."""

import argparse
import contextlib
import os
import sys
import termios
from collections.abc import Iterator

from .. import client, clock, enrolment, minting, moment, store
from ..errors import KnockError, ProfileError
from ..schemes.synprofile import Profile


def command(options: argparse.Namespace) -> None:
    """Read the line from standard input, write ~/.knockknock/SERVER/, say so. Raises KnockError."""
    home = client.become_invoker()
    profile, counter = paste() if sys.stdin.isatty() else enrolment.decode(_rest())
    directory = f"{home}/.knockknock/{profile.name}"
    write(directory, profile, counter, replace=options.replace)
    ports = ", ".join(map(str, profile.ports))
    print(f"Wrote {directory}: knocks at port {profile.knock_port}, may open {ports}{_until(profile)}.")
    first = profile.ports[0]
    sudo = "" if _may_knock() else "sudo "
    print(f"Knock:\n    {sudo}knockknock -p {first.first}{'' if first.protocol == 6 else '/udp'} {profile.name}")
    if sudo:
        print("Without sudo it takes the group knock: see README, Without sudo.")


def _may_knock() -> bool:
    """Return whether a knock needs no sudo here."""
    from .doctor import raw  # imported only here: it looks at every way to send

    return raw()[0]


def _until(profile: Profile) -> str:
    if profile.expires is None:
        return ""
    over = " (this machine's clock says that it is over)" if profile.expires <= clock.seconds() else ""
    return f", until {moment.show(profile.expires)}{over}"


def _rest() -> str:
    data = sys.stdin.buffer.read(4 * enrolment.MAX_TEXT)
    return data.decode("utf-8", "replace")


def paste() -> tuple[Profile, int]:
    """Read what is pasted into a terminal, without showing it; several lines, until they make a whole one.

    Raises ProfileError.
    """
    prompt = "Paste the line, and press Enter (it is not shown; an empty line ends): "
    text, error = "", ProfileError("nothing was pasted")
    with silent(sys.stdin.fileno()):
        print(prompt, end="", flush=True, file=sys.stderr)  # what comes before the silence is shown, and thrown away
        while (line := sys.stdin.readline()).strip():
            text += line
            try:
                return enrolment.decode(text)
            except ProfileError as found:
                error = found
    raise error


@contextlib.contextmanager
def silent(fd: int) -> Iterator[None]:
    """A terminal that does not show what is typed."""
    before = termios.tcgetattr(fd)
    quiet = [*before[:3], before[3] & ~termios.ECHO, *before[4:]]
    termios.tcsetattr(fd, termios.TCSAFLUSH, quiet)
    try:
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)
        print(file=sys.stderr)


def write(directory: str, profile: Profile, counter: int, *, replace: bool) -> None:
    """Put a profile in place, for its owner alone. Raises ProfileError.

    The same keys are never written twice: their counter would begin anew, and used counters must not be used again.
    """
    above, name = os.path.split(directory)
    before = f"{above}/.{name}.before"
    try:
        with store.exact_modes(), contextlib.suppress(FileExistsError):
            os.mkdir(above, 0o700)
        client.check_own(above)
        there = os.path.lexists(directory)
        if there and _keys(directory) == profile[1:3]:
            raise ProfileError(f"this very profile is in {directory} already; nothing was changed")
        if there and not replace:
            raise ProfileError(f"there is a profile {directory} already: say --replace if the new one is to be used")
        if not there:
            minting.create_profile(directory, profile, -1, counter)
            return
        aside = f"{above}/.{name}.next"
        minting.clear(aside)
        minting.clear(before)
        minting.create_profile(aside, profile, -1, counter)
        # Between the two there is none. Who kills us right there finds both, whole, and may paste the line again.
        os.rename(directory, before)
        os.rename(aside, directory)
        minting.clear(before)
    except OSError as error:
        raise ProfileError(f"{directory} cannot be written: {error.strerror}") from None


def _keys(directory: str) -> tuple[bytes, bytes] | None:
    """The keys of the profile that is there, None if it is broken."""
    with contextlib.suppress(KnockError):
        found = store.load_profile(directory)
        return (found.cipher_key, found.mac_key) if isinstance(found, Profile) else None
    return None
