"""knockknock itself, by each source of packets."""

import contextlib
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from .lab import ADDRESS, DOOR, ENVIRONMENT, ROOT, SECONDS, SERVER, Lab, family, inside, running, sh, until

PROFILES = {"compact": (4401, "tcp/22"), "classic": (4402, "tcp/1-4401,tcp/4403-65535")}
"""Format -> knock port and permitted ports; the second has as many as one of knockknock 0.8."""


class Own:
    """A daemon with a source, and its client."""

    kind, floods, drain = "syn", True, 1.0
    port = last = PROFILES["compact"][0]

    def __init__(
        self, lab: Lab, source: str, firewall: str = "nftables", *, syslog: bool = False, every: bool = False
    ) -> None:
        """syslog: with a syslog daemon that writes the file, else somebody else does. every: it hears of every SYN."""
        self.name = f"knockknock, {source}" + (" by rsyslogd" if syslog else "")
        self.lab, self.source, self.firewall, self._syslog, self._every = lab, source, firewall, syslog, every
        self.kern_log, self.config, self.log = (lab.directory / name for name in ("kern.log", "config", "daemon.log"))
        self.home = lab.directory / "home"
        self.profile = self.home / ".knockknock" / ADDRESS
        self.environment = {**ENVIRONMENT, "HOME": str(self.home)}
        self.configure()
        if not self.home.exists():
            for kind, (port, ports) in PROFILES.items():
                with inside(SERVER):
                    command = [kind, str(port), "--format", kind, "--ports", ports, "--config", str(self.config)]
                    sh(sys.executable, str(ROOT / "bin/knockknock-genprofile"), *command)
                with (lab.directory / "etc/profiles" / kind / "config").open("a") as config:
                    config.write("doors_per_minute = 60000\n")
            shutil.copytree(lab.directory / "etc/profiles/compact", self.profile)

    def configure(self) -> None:
        settings = f"delay = {SECONDS}\nuser = nobody\nsource = {self.source}\nlog_file = {self.kern_log}\n"
        places = f"profiles = {self.lab.directory}/etc/profiles\nstate = {self.lab.directory}/state\ncontrol = off\n"
        places += "expected_size = 0\n" if self._every else ""
        self.config.write_text(f"[main]\n{settings}{places}")

    @contextlib.contextmanager
    def running(self, guard: bool = True) -> Iterator[list[int]]:
        """The process ids of a daemon that listens, of its watch and its helper; guard: begin with a new firewall."""
        if guard:
            self.lab.guard(self.firewall)
        self.kern_log.write_text("")
        self.configure()
        with contextlib.ExitStack() as stack:
            if self._syslog:
                stack.enter_context(rsyslogd(self))
            with inside(SERVER):
                command = [sys.executable, str(ROOT / "bin/knockknock-daemon"), "--config", str(self.config)]
                pid = stack.enter_context(running(self.log, *command))
            until(lambda: "knock port(s)" in self.log.read_text() or not Path(f"/proc/{pid}/exe").exists(), "no daemon")
            if "knock port(s)" not in self.log.read_text():
                raise RuntimeError(self.log.read_text().strip().rpartition("\n")[2])
            # Knocks that nobody heard do not count in the next measurement.
            shutil.copy(self.lab.directory / "state/compact", self.profile / "counter")
            time.sleep(0.3)
            yield family(pid)

    def client(self, source: str) -> list[str]:
        return [sys.executable, str(ROOT / "bin/knockknock"), "-p", str(DOOR), ADDRESS]

    def losses(self) -> str:
        """Return how often the daemon's log says that knocks may have been lost."""
        said = [line for line in self.log.read_text().splitlines() if "may have been lost" in line]
        return f"{len(said)} times" if said else "none"


def rsyslogd(own: Own) -> contextlib.AbstractContextManager[int]:
    """A syslog daemon that writes what the kernel logs to the file that is followed.

    A copy, because AppArmor on Ubuntu lets the rsyslogd at its usual path write to /var/log alone. imkmsg and not
    imklog, because readers of /proc/kmsg take the lines away from one another.
    """
    if not (program := shutil.which("rsyslogd", path=ENVIRONMENT["PATH"])):
        raise RuntimeError("there is no rsyslogd on this machine")
    directory = own.lab.directory
    shutil.copy(program, directory / "rsyslogd")
    settings = directory / "rsyslog.conf"
    action = f'kern.* action(type="omfile" file="{own.kern_log}" fileCreateMode="0644")'
    settings.write_text(f'global(workDirectory="{directory}")\nmodule(load="imkmsg")\n{action}\n')
    command = [str(directory / "rsyslogd"), "-n", "-f", str(settings), "-i", str(directory / "rsyslog.pid")]
    return running(directory / "rsyslogd.log", *command)
