"""Starts the daemon: opens the source, starts the root helper, gives up root, listens."""

import fcntl
import gc
import logging
import os
import signal

from ..errors import KnockError, PrivilegeError
from ..profiles import counters
from ..profiles.lock_holder import holder
from ..root import privileges
from ..server import daemon, event_dispatch, file_ownership, loading, privsep, sandbox
from ..server.config import load_config
from ..server.signals import Signals
from . import service_manager

log = logging.getLogger("knockknock")


def prepare_state(directory: str, uid: int, gid: int) -> int:
    """Make the state directory, owned by the daemon, and lock it as long as the descriptor lives. Raises KnockError."""
    for complaint in file_ownership.state(directory, uid, gid):
        raise KnockError(complaint)
    real = os.path.realpath(directory)  # a link of root's is good (server/file_ownership.py), one made meanwhile is not
    try:
        os.makedirs(real, 0o700, exist_ok=True)
        lock = os.open(real, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        if os.fstat(lock).st_uid != uid:  # systemd has made it so already, and gives no right to change it
            os.fchown(lock, uid, gid)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pid = holder(lock)
        raise KnockError(
            f"another knockknock-daemon{f' (process {pid})' if pid else ''} has the state directory {directory}: "
            "stop it, or give this one another"
        ) from None
    except OSError as error:
        raise KnockError(f"the state directory {directory} cannot be made: {error.strerror}") from None
    return lock


def serve(path: str, pid_file: str | None, trial: int) -> None:
    """Run the daemon, from root to the end.

    pid_file: of the background process, None to stay in the foreground. trial: seconds after which to end, 0: never.
    """
    settings = load_config(path)
    if os.geteuid() != 0:
        raise PrivilegeError(
            "it must be started as root: it opens the log and starts the root helper, then gives root up"
        )
    file_ownership.check(path, settings)
    privileges.no_core()
    user = privsep.find_user(settings.user)
    ready = service_manager.background() if pid_file else lambda: None
    signals = Signals()
    if pid_file:
        service_manager.write_pid(pid_file)
    unswapped = privsep.lock_memory()
    messages = service_manager.logger("syslog" if pid_file else settings.log)
    lock = prepare_state(settings.state, user.pw_uid, user.pw_gid)
    source = service_manager.open_source(settings, user)
    found = loading.look(settings, source.GIVES, recall=False)
    for profile, _ in found.changes:
        counters.adopt(settings.state, settings.profiles, profile, lambda: privsep.acting_as(user))
    event_dispatch.check(settings)
    privsep.prefer()
    helper = privsep.Helper(path, settings.state, quiet=pid_file is not None, trial=trial)
    signal.alarm(trial)
    told = None
    try:
        told = event_dispatch.Dispatcher(settings, user, quiet=pid_file is not None)
        reads = [path, settings.profiles, *([] if source.path.startswith("/dev/") else [source.path])]
        enter = sandbox.prepare(settings.sandbox, reads, [settings.state, *told.writes], messages, told.listener)
        privsep.drop(user.pw_uid, user.pw_gid, [source.group] if source.group is not None else [])
        log.info("%s", helper.summary)
        keeper = loading.start(settings, found)  # files of the daemon's user are not read as root
        gc.freeze()  # a collection would walk through a hundred thousand profiles, none of them garbage
        gc.enable()
        for key in settings.obsolete:
            log.warning("%s has no effect any more: remove it from %s", key, path)
        log.info("reading %s", source.path)
        if complaint := source.complaint():
            log.warning("%s", complaint)
        daemon.report(keeper, found.bad)
        if unswapped:
            log.warning("%s", unswapped)
        notify = service_manager.notifier()

        def listening() -> None:
            if pid_file:
                service_manager.detach()
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
