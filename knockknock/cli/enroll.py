"""Writes the profile of a pasted enrolment line, whole or not at all, for knockknock --enroll."""

import contextlib
import os
import sys
import termios
from collections.abc import Iterator

from ..client import raw_socket
from ..client.knock import check_own
from ..core import dates
from ..errors import KnockError, ProfileError
from ..profiles import clock, enrolment, files, mint
from ..schemes.syn.profile import Profile
from .knock_options import Options


def command(options: Options) -> None:
    """Read the line from standard input and write ~/.knockknock/SERVER/. Raises KnockError."""
    home = raw_socket.become_invoker()
    profile, counter = paste() if sys.stdin.isatty() else enrolment.decode(_rest())
    directory = f"{home}/.knockknock/{profile.name}"
    write(directory, profile, counter, replace=options.replace)
    ports = ", ".join(map(str, profile.ports))
    print(f"Wrote {directory}: knocks at port {profile.knock_port}, may open {ports}{_until(profile)}.")
    first = profile.ports[0]
    sudo = "" if _may_knock() else "sudo "
    print(f"Knock:\n    {sudo}knockknock -p {first.first}{'' if first.protocol == 6 else '/udp'} {profile.name}")
    if sudo:
        print("Without sudo it takes the group knock: see docs/laptop.md, Without sudo.")


def _may_knock() -> bool:
    """Return True if a knock needs no sudo here."""
    from .client_doctor import raw  # imported here, because it looks at every way to send

    return raw()[0]


def _until(profile: Profile) -> str:
    if profile.expires is None:
        return ""
    over = " (this machine's clock says that it is over)" if profile.expires <= clock.seconds() else ""
    return f", until {dates.show(profile.expires)}{over}"


def _rest() -> str:
    data = sys.stdin.buffer.read(4 * enrolment.MAX_TEXT)
    return data.decode("utf-8", "replace")


def paste() -> tuple[Profile, int]:
    """Read lines pasted into a terminal, without showing them, until they make a whole enrolment line.

    Raises ProfileError.
    """
    prompt = "Paste the line, and press Enter (it is not shown; an empty line ends): "
    text, error = "", ProfileError("nothing was pasted")
    with silent(sys.stdin.fileno()):
        print(prompt, end="", flush=True, file=sys.stderr)  # input before that was shown, and is discarded
        while (line := sys.stdin.readline()).strip():
            text += line
            try:
                return enrolment.decode(text)
            except ProfileError as found:
                error = found
    raise error


@contextlib.contextmanager
def silent(fd: int) -> Iterator[None]:
    """Turn off a terminal's echo while the body runs."""
    before = termios.tcgetattr(fd)
    quiet = [*before[:3], before[3] & ~termios.ECHO, *before[4:]]
    termios.tcsetattr(fd, termios.TCSAFLUSH, quiet)
    try:
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)
        print(file=sys.stderr)


def write(directory: str, profile: Profile, counter: int, *, replace: bool) -> None:
    """Write a profile, readable by its owner alone. Raises ProfileError.

    The same keys are never written twice: their counter would begin anew, and used counters must not be used again.
    """
    above, name = os.path.split(directory)
    before = f"{above}/.{name}.before"
    try:
        with files.exact_modes(), contextlib.suppress(FileExistsError):
            os.mkdir(above, 0o700)
        check_own(above)
        there = os.path.lexists(directory)
        if there and _keys(directory) == profile[1:3]:
            raise ProfileError(f"this very profile is in {directory} already; nothing was changed")
        if there and not replace:
            raise ProfileError(f"there is a profile {directory} already: say --replace if the new one is to be used")
        if not there:
            mint.create_profile(directory, profile, -1, counter)
            return
        aside = f"{above}/.{name}.next"
        mint.clear(aside)
        mint.clear(before)
        mint.create_profile(aside, profile, -1, counter)
        # Killed between the two renames, both are there, whole, and the line may be pasted again.
        os.rename(directory, before)
        os.rename(aside, directory)
        mint.clear(before)
    except OSError as error:
        raise ProfileError(f"{directory} cannot be written: {error.strerror}") from None


def _keys(directory: str) -> tuple[bytes, bytes] | None:
    """Return the keys of an existing profile, None if it is broken."""
    with contextlib.suppress(KnockError):
        found = files.load_profile(directory)
        return (found.cipher_key, found.mac_key) if isinstance(found, Profile) else None
    return None
