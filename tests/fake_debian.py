"""A Debian that exists for apt and dpkg alone: lists of packages, and a table of what is installed."""

import os
import re
import subprocess
from pathlib import Path

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
KINDS = {"required", "important", "standard"}
"""What Debian's installer puts on each machine, by priority."""


def mirror() -> str:
    """The address of a mirror of Debian: MIRROR, as for scripts/check-deb, or the one this machine's apt has."""
    words = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Origin: Debian", "Label: Debian"]
    listed = subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()
    found = os.environ.get("MIRROR", listed[0] if listed else "")
    assert found, "say where Debian's packages are to be had: MIRROR=..."
    return found


class Debian:
    """A release, with nothing installed yet. release: its code name."""

    def __init__(self, release: str, place: Path) -> None:
        self._place = place
        self.admin = place / "var/lib/dpkg"
        for directory in ("etc/apt", "var/lib/apt/lists/partial", "var/cache/apt/archives/partial", "var/lib/dpkg"):
            (place / directory).mkdir(parents=True)
        (place / "etc/apt/sources.list").write_text(f"deb [signed-by={KEYRING}] {mirror()} {release} main\n")
        (self.admin / "status").touch()
        self._apt("apt-get", "update")
        known = re.split(r"\n\n+", self._apt("apt-cache", "dumpavail"))
        self._known = {match[1]: text for text in known if (match := re.match(r"Package: (\S+)\n", text))}

    def _apt(self, program: str, *words: str) -> str:
        options = {
            "Dir": self._place,
            "Dir::State::status": self.admin / "status",
            "Acquire::Languages": "none",
            "APT::Sandbox::User": "root",
        }
        said = [word for key, value in options.items() for word in ("-o", f"{key}={value}")]
        done = subprocess.run([program, *said, *words], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def would_install(self, *packages: str | Path, recommends: bool) -> set[str]:
        """The names of the packages that apt-get install would bring."""
        said = self._apt(
            "apt-get", "install", "-s", f"--{'' if recommends else 'no-'}install-recommends", *map(str, packages)
        )
        return set(re.findall(r"^Inst (\S+) ", said, re.MULTILINE))

    def install(self, *packages: str, recommends: bool = True) -> None:
        """Note in the table that packages, and what they bring, are installed."""
        names = self.would_install(*packages, recommends=recommends)
        with (self.admin / "status").open("a") as status:
            for name in sorted(names):
                status.write(f"{self._known[name].strip()}\nStatus: install ok installed\n\n")

    def install_server(self) -> None:
        """As Debian's installer does, with ssh and sudo, and with Python."""
        standard = [
            name
            for name, text in self._known.items()
            if (match := re.search(r"^Priority: (\S+)$", text, re.MULTILINE)) and match[1] in KINDS
        ]
        self.install(*standard, "openssh-server", "sudo", "python3")
