"""Follows README.md and docs/ on real machines, block by block, then reboots, upgrades and purges.

    laptop 10.77.0.2 ──── -netdev socket ──── 10.77.0.1 server          other (by itself)

Each is a Debian as its installer leaves one, with ssh, sudo and Python: its stock kernel, its systemd, no list of
packages; and a user `you` who may use sudo. A network of QEMU's own reaches the mirror, and ssh reaches the machine.
"""

import argparse
import contextlib
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.fake_debian import mirror
from tests.netns import test_pages as pages
from tests.netns.fresh_machines import Machines
from tests.netns.lab import ROOT

RELEASES = {"12": "bookworm", "13": "trixie"}
CACHE = Path(os.path.expanduser("~/.cache/knockknock-vm"))
HOSTS = {"server": 1, "laptop": 2, "other": 3}
PACKAGES = (
    "linux-image-amd64,systemd-sysv,systemd-resolved,dbus,dbus-user-session,libpam-systemd,openssh-server,sudo,python3,"
    "iproute2,iputils-ping,ca-certificates,man-db,curl,git,openssl,netcat-openbsd,rsync,procps"
)
"""Beyond what is required and important: those that the pages take for granted, and what a machine needs to boot."""
LEFT_OUT = {"Docker", "One-time passwords, for clients of xt_pknock"}
"""Sections that take what these machines do not have; tests/netns/test_pages.py follows them."""
FURNISH = r"""
set -e
rm -f "$1"/var/lib/apt/lists/*_* "$1"/etc/resolv.conf
ln -s ../run/systemd/resolve/stub-resolv.conf "$1"/etc/resolv.conf
printf 'nameserver 10.0.2.3\n' > "$1"/etc/resolv.conf.fallback
chroot "$1" useradd --create-home --shell /bin/bash --password '*' you
echo 'you ALL=(ALL) NOPASSWD: ALL' > "$1"/etc/sudoers.d/you
chmod 440 "$1"/etc/sudoers.d/you
echo 'APT::Get::Assume-Yes "true";' > "$1"/etc/apt/apt.conf.d/99-no-questions
{
    printf '[Match]\nMACAddress=52:54:00:00:00:01 52:54:00:00:00:02 52:54:00:00:00:03\n'
    printf '[Network]\nDHCP=ipv4\nDNS=10.0.2.3\n'
} > "$1"/etc/systemd/network/10-user.network
printf '127.0.0.1 localhost\n10.77.0.1 server.example old.example\n' > "$1"/etc/hosts
chroot "$1" systemctl -q enable systemd-networkd systemd-resolved ssh
chroot "$1" systemctl -q disable systemd-networkd-wait-online.service
for home in "$1"/root "$1"/home/you; do
    mkdir -m 700 -p $home/.ssh
    cp "$2" $home/.ssh/authorized_keys
done
chroot "$1" chown -R you: /home/you/.ssh
cp /etc/ssl/certs/ca-certificates.crt "$1"/etc/ssl/certs/ca-certificates.crt
"""


def run(*words: str | Path) -> None:
    subprocess.run([str(word) for word in words], check=True)


def image(release: str) -> Path:
    """The directory with disk, kernel and initrd of a release; made if it is not there."""
    place = CACHE / release
    if (place / "disk.img").exists():
        return place
    print(f"making a Debian, {release}", flush=True)
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", place / "key")
    with tempfile.TemporaryDirectory(dir=place) as root:
        words = ["--variant=important", "--components=main", f"--include={PACKAGES}"]
        run("mmdebstrap", "--quiet", *words, release, root, f"deb {mirror()} {release} main")
        run("sh", "-c", FURNISH, "sh", root, place / "key.pub")
        for name in ("vmlinuz", "initrd.img"):
            shutil.copy(next(Path(root, "boot").glob(f"{name}-*")), place / name)
        run("truncate", "-s", "8G", place / "new.img")
        run("mke2fs", "-q", "-t", "ext4", "-L", "root", "-d", root, place / "new.img")
    (place / "new.img").rename(place / "disk.img")
    return place


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


class Virtual(Machines):
    """Machines under QEMU. They are all online, and take their time."""

    CONNECT_TIMEOUT, PATIENCE = 10, 1800.0

    def __init__(self, release: str, place: Path, kvm: bool) -> None:
        self._image, self._place = image(release), place
        self._accel = ["-accel", "kvm" if kvm else "tcg"]
        self._ports = {host: free_port() for host in HOSTS}
        self._link = free_port(), free_port()
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._rebooted = False

    def start_all(self) -> None:
        """Make and boot the machines."""
        for host in HOSTS:
            disk = f"{self._place}/{host}.qcow2"
            words = ["-q", "-f", "qcow2", "-F", "raw", "-b", f"{self._image}/disk.img", disk]
            run("qemu-img", "create", *words)
            self.boot(host)
        self._furnish()
        # As somebody who sits at the laptop: his services run on between two commands.
        self.good("laptop", "loginctl enable-linger you", user="root")

    def boot(self, host: str) -> None:
        """Start a machine, and wait until ssh answers."""
        number = HOSTS[host]
        nets = ["-netdev", f"user,id=u,hostfwd=tcp:127.0.0.1:{self._ports[host]}-:22"]
        nets += ["-device", f"virtio-net-pci,netdev=u,mac=52:54:00:00:00:{number:02x}"]
        if host != "other":
            # By UDP, which outlives the reboot of one end.
            own, peer = self._link if host == "server" else self._link[::-1]
            nets += ["-netdev", f"socket,id=l,udp=127.0.0.1:{peer},localaddr=127.0.0.1:{own}"]
            nets += ["-device", f"virtio-net-pci,netdev=l,mac=52:54:00:00:01:{number:02x}"]
        words = ["qemu-system-x86_64", *self._accel, "-cpu", "max", "-m", "1024", "-smp", "1"]
        words += ["-nographic", "-no-reboot", "-serial", f"file:{self._place}/{host}.console", "-monitor", "none"]
        words += ["-kernel", f"{self._image}/vmlinuz", "-initrd", f"{self._image}/initrd.img"]
        words += ["-append", "root=LABEL=root rw console=ttyS0 quiet"]
        words += ["-drive", f"file={self._place}/{host}.qcow2,if=virtio,cache=unsafe", *nets]
        self._running[host] = subprocess.Popen(words, stdin=subprocess.DEVNULL)
        end_of_patience = time.monotonic() + 600
        while not self._answers(host):
            assert time.monotonic() < end_of_patience, f"{host} does not boot: see {self._place}/{host}.console"
            assert self._running[host].poll() is None, f"{host} has ended: see {self._place}/{host}.console"
            time.sleep(3)

    def reboot(self, host: str) -> None:
        self.run(host, "systemctl reboot", user="root")
        self._running[host].wait(300)
        for user in ("you", "root"):
            Path(f"{self._place}/{user}").unlink(missing_ok=True)
        self._rebooted = host == "server"
        self.boot(host)

    def _furnish(self) -> None:
        for host, number in HOSTS.items():
            link = f"[Match]\\nMACAddress=52:54:00:00:01:{number:02x}\\n[Network]\\nAddress=10.77.0.{number}/24\\n"
            self.good(host, f"hostnamectl set-hostname {host}; echo '127.0.1.1 {host}' >> /etc/hosts", user="root")
            set_up = f"printf '{link}' > /etc/systemd/network/20-link.network; networkctl reload"
            self.good(host, set_up, user="root")
        git = ["git", "-c", "safe.directory=*", "-C", str(ROOT), "archive", "HEAD"]
        tar = subprocess.run(git, capture_output=True, check=True).stdout
        for host in ("server", "other"):
            words = [*self._ssh(host, "you"), "mkdir knockknock && tar -C knockknock -xf -"]
            subprocess.run(words, input=tar, check=True)
        self.good("laptop", "ssh-keygen -q -t ed25519 -N '' -f ~/.ssh/id_ed25519")
        key = self.good("laptop", "cat ~/.ssh/id_ed25519.pub")
        self.good("server", "cat >> ~/.ssh/authorized_keys", text=key)
        hosts = self.good("server", "sed 's/^/server.example /' /etc/ssh/ssh_host_ed25519_key.pub")
        self.good("laptop", "cat > ~/.ssh/known_hosts", text=hosts)
        self.good("laptop", "ping -c 1 -W 10 10.77.0.1")

    def _ssh(self, host: str, user: str) -> list[str]:
        options = ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR", "ConnectTimeout=20")
        words = [word for option in options for word in ("-o", option)]
        if host == "server":
            # It closes its door behind us: one connection stays, and after a reboot it is knocked for.
            words += ["-o", "ControlMaster=auto", "-o", f"ControlPath={self._place}/{user}", "-o", "ControlPersist=yes"]
            if self._rebooted:
                knock = [*self._ssh("laptop", "you"), "knockknock -p 22 --stdio --timeout 20 server.example"]
                words += ["-o", f"ProxyCommand={shlex.join(knock)}"]
        return ["ssh", "-i", f"{self._image}/key", "-p", str(self._ports[host]), *words, f"{user}@127.0.0.1"]

    def words(self, host: str, user: str, lines: str, *, online: bool = False) -> list[str]:
        inside = f"DEBIAN_FRONTEND=noninteractive bash -e -o pipefail -c {shlex.quote(lines)}"
        return [*self._ssh(host, user), inside]

    def _answers(self, host: str) -> bool:
        """Return True if root can log in."""
        with contextlib.suppress(AssertionError):
            return self.run(host, "true", user="root", patience=30).returncode == 0
        return False

    def close(self) -> None:
        for process in self._running.values():
            process.kill()
            process.wait()

    def how_to_log_in(self) -> str:
        return "\n".join(f"{host}: {shlex.join(self._ssh(host, 'you'))}" for host in HOSTS)


def before_firewalld(machines: Machines) -> None:
    machines.good("server", "ufw disable", user="root")
    pages.empty_firewall(machines)


def install_firewall(name: str) -> Callable[[Machines], None]:
    """A reader of that section has it, and nothing of the section before."""

    def install(machines: Machines) -> None:
        machines.good("server", f"apt-get install -q {name}", user="root")
        if name == "firewalld":
            before_firewalld(machines)
            machines.good("server", "systemctl disable --now ufw", user="root")
        else:
            pages.empty_firewall(machines)
            machines.good("server", "systemctl disable --now nftables; systemctl daemon-reload", user="root")

    return install


def reboot(machines: Virtual) -> None:
    """Test that the server comes back closed, without any other firewall, and a knock opens it."""
    machines.good("server", "systemctl disable --now firewalld; systemctl disable nftables", user="root")
    machines.reboot("server")
    machines.good("server", "systemctl is-active knockknock knockknock-gate", user="root")
    machines.good("server", "! systemctl is-active nftables firewalld ufw", user="root")
    # In front of the network, not behind the daemon.
    machines.good("server", "systemctl show -p Before knockknock-gate | grep network-pre.target", user="root")
    pages.closed(machines)
    machines.good("laptop", "ssh server.example true")


PROBE = """exec python3 -c 'import socket
print("probing", flush=True)
while True:
    with socket.socket() as probe:
        probe.settimeout(0.2)
        print("open" if not probe.connect_ex(("10.77.0.1", 22)) else "closed", flush=True)'"""


def upgrade(machines: Machines) -> None:
    """A newer package, while the daemon runs: it runs on, with its counters, and ssh is open at no moment."""
    repack = (
        "rm -rf /tmp/new; dpkg-deb -R ~you/knockknock/dist/knockknock_*.deb /tmp/new;"
        "sed -i 's/^Version: .*/&+later/' /tmp/new/DEBIAN/control; dpkg-deb -b /tmp/new /tmp/later.deb;"
        "apt-get install -q /tmp/later.deb; systemctl is-active knockknock"
    )
    before = machines.good("server", "systemctl show -p MainPID knockknock", user="root")
    pages.shut(machines)
    probe = machines.start("laptop", PROBE, "probing")
    machines.good("server", repack, user="root")
    probe.terminate()
    tries = probe.communicate()[0].split()
    assert len(tries) > 20
    assert "open" not in tries
    assert machines.good("server", "systemctl show -p MainPID knockknock", user="root") != before
    machines.good("laptop", "ssh server.example true")


def purge(machines: Machines) -> None:
    machines.good(
        "server", "apt-get remove -q knockknock; ls /etc/knockknock.d/config /var/lib/knockknock", user="root"
    )
    gone = "apt-get purge -q knockknock; [ ! -e /etc/knockknock.d ]; [ ! -e /var/lib/knockknock ]"
    machines.good("server", gone, user="root")
    machines.good("server", "! nft list table inet knockknock", user="root")
    assert pages.login(machines), "ssh is open to all again"


def log_in_anew(machines: Machines) -> None:
    """The user's services have his new group from a new login on."""
    machines.good("laptop", "loginctl terminate-user you; sleep 3", user="root")


BEFORE: dict[str, Callable[[Machines], object]] = {
    **pages.BEFORE,
    "Use it in a browser": log_in_anew,
    "ufw": install_firewall("ufw"),
    "firewalld": install_firewall("firewalld"),
}
AFTER: dict[str, Callable[[Virtual], object]] = {"a reboot": reboot, "an upgrade": upgrade, "a purge": purge}


def step(name: str, what: Callable[[], object]) -> bool:
    """Do one thing and say how it went."""
    begin = time.monotonic()
    try:
        what()
    except (AssertionError, ValueError, subprocess.SubprocessError) as error:
        print(
            f"FAILED  {time.monotonic() - begin:5.0f} s  {name}\n{re.sub('^', '    ', str(error), flags=re.M)}",
            flush=True,
        )
        return False
    print(f"ok      {time.monotonic() - begin:5.0f} s  {name}", flush=True)
    return True


def follow(machines: Virtual) -> list[str]:
    """All blocks, in their order, then what comes later; the names of what failed."""
    reader, section = pages.Reader(machines), ""
    failed: list[str] = []

    def do(name: str, what: Callable[[], object]) -> None:
        if not step(name, what):
            failed.append(name)

    for block in pages.pages():
        if block.section in LEFT_OUT:
            continue
        if block.section != section:
            if claim := pages.CLAIMS.get(section):
                do(f"{section}: what it claims", partial(claim, machines))
            section = block.section
            if prepare := BEFORE.get(section):
                do(f"{section}: what it takes for granted", partial(prepare, machines))
        first = block.text.strip().partition("\n")[0]
        do(f"{section}: {first}", partial(reader.perform, block))
    if claim := pages.CLAIMS.get(section):
        do(f"{section}: what it claims", partial(claim, machines))
    for name, later in AFTER.items():
        do(name, partial(later, machines))
    return failed


def main() -> int:
    options = argparse.ArgumentParser(prog="scripts/vm", description=__doc__)
    options.add_argument("release", nargs="?", choices=[*RELEASES, "all"], default="all", help="of Debian")
    options.add_argument("--kvm", action="store_true", help="use KVM, which is ten times as fast where it works")
    options.add_argument("--keep", action="store_true", help="leave the machines on at the end")
    asked = options.parse_args()
    failed: dict[str, list[str]] = {}
    for number in RELEASES if asked.release == "all" else [asked.release]:
        with contextlib.ExitStack() as stack:
            place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="knockknock-vm-")))
            print(f"== Debian {number}", flush=True)
            machines = Virtual(RELEASES[number], place, asked.kvm)
            stack.callback(machines.close)
            if not step("the machines", machines.start_all):
                failed[number] = ["the machines"]
                continue
            failed[number] = follow(machines)
            if asked.keep:
                print(machines.how_to_log_in(), flush=True)
                input("They are on until you press Enter. ")
    for number, names in failed.items():
        print(f"Debian {number}: " + (f"{len(names)} failed: {'; '.join(names)}" if names else "all is well"))
    return 1 if any(failed.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
