"""Prints, draws or writes the enrolment line of a profile, for knockknock-genprofile."""

import argparse
import contextlib
import os
import socket
from collections.abc import Iterator

from ..errors import KnockError, OutputError, ProfileError
from ..profiles import enrolment
from ..schemes.syn.profile import Profile


def server(options: argparse.Namespace) -> str:
    """Return the client's name for this server. Raises ProfileError."""
    return enrolment.check_server(options.server or socket.gethostname())


def check_qr(options: argparse.Namespace) -> None:
    """Raise KnockError if a QR code is asked for that cannot be drawn."""
    if options.qr:
        try:
            import segno  # noqa: F401  # to fail before anything is written
        except ModuleNotFoundError:
            raise KnockError("--qr takes the Python package segno: apt install python3-segno") from None


@contextlib.contextmanager
def shown_again(name: str) -> Iterator[None]:
    """Tell how to get the line again, if the body cannot print it. Raises OutputError."""
    try:
        yield
    except OutputError as error:
        raise OutputError(
            f"{error}; {name} is made, and until it knocks its line is shown again by knockknock-genprofile "
            f"show-line {name}"
        ) from None


@contextlib.contextmanager
def handed_over(options: argparse.Namespace, profile: Profile) -> Iterator[str]:
    """Yield the client's line for the body to print; with --out write it to a file, which is removed if the body fails.

    Raises ProfileError.
    """
    line = enrolment.encode(profile._replace(name=server(options), delay=None, doors_per_minute=None), 0)
    if not options.out:
        yield line
        return
    try:
        fd = os.open(options.out, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(fd, "w") as file:
            os.fchmod(fd, 0o600)
            file.write(f"{line}\n")
            file.flush()
            os.fsync(fd)
    except FileExistsError:
        raise ProfileError(f"there is a {options.out} already: give --out a place where nothing is") from None
    except OSError as error:
        raise ProfileError(f"--out {options.out} cannot be written: {error.strerror}") from None
    try:
        yield line
    except BaseException:
        os.unlink(options.out)
        raise


def steps(options: argparse.Namespace, profile: Profile, line: str, *, replace: bool, heard: bool) -> str:
    """Return what is left to do, ending with the line. replace: the client has an older profile. heard: reloaded."""
    reload = (
        ""
        if heard
        else ("Let the daemon read it (or start it, if it does not run yet):\n    sudo systemctl reload knockknock\n")
    )
    enroll = f"knockknock --enroll{' --replace' if replace else ''}"
    first = profile.ports[0]
    knock = f"sudo knockknock -p {first.first}{'' if first.protocol == 6 else '/udp'} {server(options)}"
    if options.out:
        end = f"""The line for the client is in {options.out}. It is a secret: take it over a connection that you trust,
and remove it here. One way, which leaves no copy:
    ssh USER@CLIENT {enroll} < {options.out} && rm {options.out}
Then, on the client:
    {knock}"""
    else:
        end = f"""On the client, run this, paste the line below, and knock:
    {enroll}
    {knock}
The line is a secret, good for one client: take it over a connection that you trust.

{line}"""
    return f"{reload}{_drawn(line) if options.qr else ''}{end}"


def _drawn(line: str) -> str:
    import io

    import segno

    text = io.StringIO()
    # In capitals, for the alphanumeric mode of QR codes.
    segno.make(line.upper(), error="l", micro=False).terminal(text, compact=True)
    return f"\n{text.getvalue()}\n"
