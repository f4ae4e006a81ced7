"""New machines, on which somebody follows a page of instructions.

    laptop 10.77.0.2 ──── 10.77.0.1 server 10.77.1.1 ──── 10.77.1.2 other          (the hosts of lab.py)

Each has this machine's files as they are, with what it changes kept aside in memory, and mounts, a network and a host
name of its own. There is a user `you`, who may use sudo without a password and whose ssh key the server takes. There is
nothing of knockknock but, on server and other, a copy of this repository in his home. All programs are real but two:

- systemctl and journalctl, because systemd can only be process 1: tests/netns/systemctl starts what the units say;
- apt asks no questions.
"""

import abc
import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

from .lab import ROOT, Lab

HOSTS = {"server": "server", "laptop": "client", "other": "other"}
"""Our names of the lab's machines."""
_MOUNT = """
set -e
hostname "$2"
mount -t tmpfs -o mode=755 tmpfs "$1"
mkdir "$1/changes" "$1/work" "$1/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/changes,workdir=$1/work" "$1/root"
for place in dev proc sys; do mount --rbind "/$place" "$1/root/$place"; done
mount -t tmpfs -o mode=755 tmpfs "$1/root/run"
mount -t tmpfs -o mode=1777 tmpfs "$1/root/tmp"
echo ready
exec sleep 3600
"""
_FURNISH = """
set -e
cp -L /proc/1/root/etc/resolv.conf /etc/resolv.conf 2> /dev/null || true
rm -rf /etc/knockknock.d /opt/knockknock /usr/local/bin/knockknock* /var/lib/knockknock /root/.knockknock
rm -f /var/log/kern.log # as on a new Debian, which has no syslog daemon
rm -rf /etc/firewalld/zones /etc/dpkg/dpkg.cfg.d/docker* /etc/sudoers.d/knockknock
for user in knockknock you; do userdel -r $user > /dev/null 2>&1 || true; done
groupdel knock 2> /dev/null || true
printf '127.0.0.1 localhost %s\\n10.77.0.1 server.example old.example\\n' "$(hostname)" > /etc/hosts
useradd --create-home --shell /bin/bash --password '*' you
chmod 700 /home/you # as on Debian 13
echo 'you ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/you
chmod 440 /etc/sudoers.d/you
echo force-unsafe-io > /etc/dpkg/dpkg.cfg.d/machines # all this is in memory
rm -f /var/lib/man-db/auto-update
echo 'APT::Get::Assume-Yes "true"; APT::Install-Recommends "false";' > /etc/apt/apt.conf.d/99-no-questions
for name in systemctl journalctl; do install -m 755 /tmp/systemctl /usr/local/bin/$name; done
mkdir -p /run/sshd /run/lock
"""
_UMASK = '[ "$USER" = root ] || umask 002\n'
"""As Debian 13 sets it."""


class Machines(abc.ABC):
    """Machines of the names in HOSTS, each with a user `you`."""

    CONNECT_TIMEOUT = 1
    """Seconds after which ssh to a port that refuses silently gives up."""
    PATIENCE = 180.0
    """Seconds for one run."""

    @abc.abstractmethod
    def words(self, host: str, user: str, lines: str, *, online: bool = False) -> list[str]:
        """Return the command that has bash run lines as a user; online: see run()."""

    def run(
        self,
        host: str,
        script: str,
        *,
        user: str = "you",
        online: bool = False,
        text: str = "",
        at: str = "~/knockknock",
        patience: float = 0,
    ) -> subprocess.CompletedProcess[str]:
        """Run lines of shell as the user would, in a directory, or in his home if it is not there.

        online: with a network that reaches the mirror of packages; needed nowhere else. text: standard input. patience:
        seconds, instead of PATIENCE.
        """
        words = self.words(host, user, f"cd; [ ! -d {at} ] || cd {at}\n{script}", online=online)
        try:
            return subprocess.run(
                words,
                input=text,
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=patience or self.PATIENCE,
                check=False,
                errors="replace",
            )
        except subprocess.TimeoutExpired as error:
            said = error.stdout.decode(errors="replace") if isinstance(error.stdout, bytes) else ""
            raise AssertionError(f"on {host}: no end within {error.timeout:.0f} s: {script}\n{said}") from None

    def good(self, host: str, script: str, *, user: str = "you", text: str = "", online: bool = False) -> str:
        """Run lines of shell that must succeed. Return their output."""
        done = self.run(host, script, user=user, text=text, online=online)
        assert done.returncode == 0, f"on {host}: {script}\n{done.stdout}"
        return done.stdout

    def start(self, host: str, script: str, word: str) -> subprocess.Popen[str]:
        """Start lines of shell as the user; return as soon as they have printed a line with that word."""
        process = subprocess.Popen(
            self.words(host, "you", f"cd; {script}"),
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert process.stdout is not None
        said = ""
        for line in process.stdout:
            said += line
            if word in line:
                return process
        raise AssertionError(f"it ended before it said {word}: {said}")


class Namespaces(Machines):
    """Machines in network namespaces; what runs on them ends with the lab."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self._place = Path(tempfile.mkdtemp(prefix="knockknock-machines-"))
        self._place.chmod(0o755)
        lab.on_close(lambda: shutil.rmtree(self._place, ignore_errors=True))
        self._holders: dict[str, int] = {}
        for host in HOSTS:
            self._raise(host)
        self._give_keys()

    def _root(self, host: str) -> str:
        return f"{self._place}/{host}/root"

    def _raise(self, host: str) -> None:
        """Mount a machine, for as long as a process of it runs."""
        place = self._place / host
        place.mkdir()
        words = ["unshare", "--mount", "--uts", "sh", "-c", _MOUNT, "sh", str(place), host]
        holder = self.lab.start(HOSTS[host], *words, stdout=subprocess.PIPE)
        assert holder.stdout is not None
        assert holder.stdout.readline() == "ready\n", "an overlay over / cannot be mounted here"
        self._holders[host] = holder.pid
        mounts = os.readlink(f"/proc/{holder.pid}/ns/mnt")
        self.lab.on_close(lambda: _kill_all(mounts))
        self.good(host, "cat > /tmp/systemctl", text=(ROOT / "tests/netns/systemctl").read_text(), user="root")
        self.good(host, _FURNISH, user="root")

    def _give_keys(self) -> None:
        git = ["git", "-c", "safe.directory=*", "-C", str(ROOT), "ls-files", "-z", "-co", "--exclude-standard"]
        listed = subprocess.run(git, capture_output=True, check=True).stdout.split(b"\0")
        there = b"\0".join(path for path in listed if path and (ROOT / path.decode()).exists())
        pack = ["tar", "-C", str(ROOT), "--null", "-T", "-", "-cf", "-"]
        tar = subprocess.run(pack, input=there, capture_output=True, check=True).stdout
        for host in ("server", "other"):
            unpack = [*self._enter(host, "you", online=False), "cd && mkdir knockknock && tar -C knockknock -xf -"]
            subprocess.run(unpack, input=tar, check=True)
        self.good("laptop", "ssh-keygen -q -t ed25519 -N '' -f ~/.ssh/id_ed25519")
        key = self.good("laptop", "cat ~/.ssh/id_ed25519.pub")
        self.good("server", "mkdir -m 700 ~/.ssh && cat > ~/.ssh/authorized_keys", text=key)
        self.good("server", "ssh-keygen -A && /usr/sbin/sshd -o UsePAM=no -o PidFile=/run/sshd.pid", user="root")
        hosts = self.good("server", "sed 's/^/server.example /' /etc/ssh/ssh_host_ed25519_key.pub")
        self.good("laptop", "cat > ~/.ssh/known_hosts", text=hosts)

    def _enter(self, host: str, user: str, *, online: bool) -> list[str]:
        home = "/root" if user == "root" else f"/home/{user}"
        words = ["nsenter", "--target", str(self._holders[host]), "--mount", "--uts", *([] if online else ["--net"])]
        words += ["chroot", self._root(host), "setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups"]
        words += ["env", "-i", f"HOME={home}", f"USER={user}", f"LOGNAME={user}", "LANG=C.UTF-8", "COLUMNS=120"]
        words += ["DEBIAN_FRONTEND=noninteractive", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
        return [*words, "bash", "-e", "-o", "pipefail", "-c"]

    def words(self, host: str, user: str, lines: str, *, online: bool = False) -> list[str]:
        return [*self._enter(host, user, online=online), f"{_UMASK}{lines}"]

    def start(self, host: str, script: str, word: str) -> subprocess.Popen[str]:
        process = super().start(host, script, word)
        self.lab.processes.append(process)
        return process


def _kill_all(mounts: str) -> None:
    """End every process that has these mounts."""
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if os.readlink(entry / "ns" / "mnt") == mounts:
                os.kill(int(entry.name), signal.SIGKILL)
