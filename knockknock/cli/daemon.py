"""knockknock-daemon: opens the source, starts the root helper, gives up root, listens."""

import argparse
import fcntl
import gc
import logging
import os
import signal

from .. import (
    __version__,
    config,
    counters,
    daemon,
    loading,
    observers,
    ownership,
    privsep,
    running,
    sandbox,
    store,
)
from ..errors import KnockError, PrivilegeError
from ..root import firewall, privileges
from ..signals import Signals
from . import doctor_server, formatter, run, scan, service, status

log = logging.getLogger("knockknock")


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    options = argparse.ArgumentParser(
        prog="knockknock-daemon",
        formatter_class=formatter,
        description="Listens for knocks in the kernel's packet log and opens ports for those who knock rightly.",
        epilog="Signals: HUP reads configuration and profiles again, TERM stops. "
        "Exit status: 0, 1 could not (--status: does not run, or has nothing open for --source), 2 usage.",
    )
    options.add_argument(
        "--config", metavar="FILE", default=config.DEFAULT_PATH, help="configuration (default %(default)s)"
    )
    options.add_argument(
        "--check", action="store_true", help="say what is wrong with everything that a start needs, and end"
    )
    status.add_options(options)
    options.add_argument(
        "--try",
        metavar="SECONDS",
        dest="trial",
        type=_seconds,
        default=0,
        help="end after so many seconds, and refuse nothing more by protect =, even if all of it is killed",
    )
    options.add_argument(
        "--open-gate",
        action="store_true",
        help="refuse nothing more by protect =, now and from the next boot on, and end",
    )
    scan.add_options(options)
    doctor_server.add_options(options)
    options.add_argument(
        "--daemonize", action="store_true", help="go to the background once it listens; for a SysV init"
    )
    options.add_argument(
        "--pid-file", metavar="FILE", help="of the background process (default /run/knockknock-daemon.pid)"
    )
    options.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    return options


def _seconds(text: str) -> int:
    """Raises ArgumentTypeError."""
    if not (text.isascii() and text.isdigit() and len(text) < 6 and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from 1 to 99999")
    return int(text)


def open_gate(path: str) -> None:
    """Take away what refuses, of a daemon that does not run. Raises KnockError."""
    settings = store.load_config(path)
    if os.geteuid() != 0:
        raise PrivilegeError("only root may change what is refused: use sudo")
    firewall.open_gate(settings.state, settings.ct_label)
    print("nothing is refused by knockknock now; a daemon that starts refuses again what protect = names")


def prepare_state(directory: str, uid: int, gid: int) -> int:
    """Make the state directory, the daemon's own, and lock it as long as the descriptor lives. Raises KnockError."""
    for complaint in ownership.state(directory, uid, gid):
        raise KnockError(complaint)
    real = os.path.realpath(directory)  # a link of root's is good (ownership.py), one that comes meanwhile is not
    try:
        os.makedirs(real, 0o700, exist_ok=True)
        lock = os.open(real, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        if os.fstat(lock).st_uid != uid:  # else systemd has made it so, and gives us no right to
            os.fchown(lock, uid, gid)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = running.holder(lock)
        raise KnockError(
            f"another knockknock-daemon{f' (process {holder})' if holder else ''} has the state directory {directory}: "
            "stop it, or give this one another"
        ) from None
    except OSError as error:
        raise KnockError(f"the state directory {directory} cannot be made: {error.strerror}") from None
    return lock


def serve(path: str, pid_file: str | None, trial: int) -> None:
    """Everything from root to the end.

    pid_file: of the background process, None to stay in the foreground. trial: seconds after which to end, 0: never.
    """
    settings = store.load_config(path)
    if os.geteuid() != 0:
        raise PrivilegeError(
            "it must be started as root: it opens the log and starts the root helper, then gives root up"
        )
    ownership.check(path, settings)
    privileges.no_core()
    user = privsep.find_user(settings.user)
    ready = service.background() if pid_file else lambda: None
    signals = Signals()
    if pid_file:
        service.write_pid(pid_file)
    unswapped = privsep.lock_memory()
    messages = service.logger("syslog" if pid_file else settings.log)
    lock = prepare_state(settings.state, user.pw_uid, user.pw_gid)
    source = service.open_source(settings, user)
    found = loading.look(settings, source.GIVES, recall=False)
    for profile, _ in found.changes:
        counters.adopt(settings.state, settings.profiles, profile, lambda: privsep.acting_as(user))
    observers.check(settings)
    privsep.prefer()
    helper = privsep.Helper(path, settings.state, quiet=pid_file is not None, trial=trial)
    signal.alarm(trial)
    told = None
    try:
        told = observers.Observers(settings, user, quiet=pid_file is not None)
        reads = [path, settings.profiles, *([] if source.path.startswith("/dev/") else [source.path])]
        enter = sandbox.prepare(settings.sandbox, reads, [settings.state, *told.writes], messages, told.listener)
        privsep.drop(user.pw_uid, user.pw_gid, [source.group] if source.group is not None else [])
        log.info("%s", helper.summary)
        keeper = loading.start(settings, found)  # reads what is the daemon's own, so not as root
        gc.freeze()  # to walk through a hundred thousand profiles takes a while, and nothing of them can be garbage
        gc.enable()
        for key in settings.obsolete:
            log.warning("%s has no effect any more: remove it from %s", key, path)
        log.info("reading %s", source.path)
        if complaint := source.complaint():
            log.warning("%s", complaint)
        daemon.report(keeper, found.bad)
        if unswapped:
            log.warning("%s", unswapped)
        notify = service.notifier()

        def listening() -> None:
            if pid_file:
                service.detach()
            enter()
            notify("READY=1")
            ready()

        daemon.Daemon(path, settings, keeper, source, helper, told, signals).run(listening)
        log.info("the trial is over: nothing is refused by protect = any more" if trial else "stopped")
    except KnockError as error:
        log.critical("%s", error)
        raise
    finally:
        if told:
            told.stop()
        helper.stop()
        os.close(lock)


def command(arguments: list[str]) -> None:
    options = parser().parse_args(arguments)
    path = os.path.abspath(options.config)
    if options.pid_file and not options.daemonize:
        parser().error("--pid-file goes with --daemonize")
    modes = (options.check, options.status, options.events, options.daemonize, options.blocked, options.unblock)
    if (options.trial or options.open_gate) and (any(modes) or (options.trial and options.open_gate)):
        parser().error("--try and --open-gate are each used alone, or with --config")
    if doctor_server.asked(parser(), options):
        from . import examine  # imported only when asked for

        examine.show(path, options)
    elif not scan.asked(parser(), options) and status.asked(parser(), options):
        status.show(store.load_config(path).control, options)
    elif scan.asked(parser(), options):
        scan.show(path, options)
    elif options.open_gate:
        open_gate(path)
    elif options.check:
        from . import check  # as above

        check.check(path)
    else:
        serve(path, (options.pid_file or "/run/knockknock-daemon.pid") if options.daemonize else None, options.trial)


def main() -> None:
    """The entry point of the command."""
    run("knockknock-daemon", command)
