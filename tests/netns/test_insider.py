"""A stranger's code in the daemon's process: what it can do with the sandbox, and that without it it could do more."""

import contextlib
import itertools
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from knockknock.core.key_text import parse_key
from knockknock.root.record import SURVEYED
from tests.helpers import code_lines

from . import hostile
from .lab import DELAY, ROOT, Daemon, Lab, children, start_watch, until

pytest.importorskip("pyseccomp")
HOST = "10.77.0.1"
HIDDEN = ("seccomp", "pyseccomp")
Takes = Callable[..., tuple[Daemon, dict[str, str]]]


@pytest.fixture
def taken(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Takes:
    """Starts a daemon that is taken over, by a scenario of insider.py, with facts for it."""

    def take(scenario: str, *, ready: bool = True, **facts: Any) -> tuple[Daemon, dict[str, str]]:
        report, told = lab.directory / "report", lab.directory / "facts"
        told.write_text(json.dumps({"report": str(report), **facts}))
        program = lab.program
        code = f"import sys; sys.path[:0] = [{str(ROOT)!r}]; from tests.netns.insider import main; main()"
        words = [sys.executable, "-c", code, scenario, str(told)]
        with monkeypatch.context() as patch:
            patch.setattr(lab, "program", lambda name: words if name == "knockknock-daemon" else program(name))
            daemon = lab.daemon(ready=ready)
        if scenario == "nothing":
            return daemon, {}
        until(lambda: report.exists() and report.read_text().endswith("\n"))
        return daemon, json.loads(report.read_text())

    return take


@pytest.fixture
def victim(lab: Lab, daemon_user: Any) -> Iterator[int]:
    """The process id of another process of the daemon's user."""
    words = ["setpriv", f"--reuid={daemon_user.pw_uid}", f"--regid={daemon_user.pw_gid}", "--clear-groups"]
    with subprocess.Popen([*words, "sleep", "60"]) as process:
        until(lambda: Path(f"/proc/{process.pid}/comm").read_text() == "sleep\n")
        yield process.pid
        process.kill()
        for tracer in lab.processes:  # whose victim ends only when it has ended itself
            tracer.kill()


@pytest.fixture
def elsewhere(lab: Lab, daemon_user: Any) -> Path:
    """A directory that everybody may read and write, with files of which that is true as well."""
    directory = lab.directory / "elsewhere"
    directory.mkdir()
    for name in ("readable", "writable", "removable"):
        (directory / name).write_text("what is none of the daemon's business")
        (directory / name).chmod(0o666)
    directory.chmod(0o777)
    return directory


def facts(lab: Lab, victim: int, elsewhere: Path) -> dict[str, Any]:
    return {
        "victim": victim,
        "elsewhere": str(elsewhere),
        "config": lab.configure(),
        "key": f"{lab.settings['profiles']}/laptop/mac.key",
        "state": lab.settings["state"],
    }


ALSO_WITHOUT = {
    "root: setuid": "EPERM",
    "root: setresuid": "EPERM",
    "root: setgroups": "EPERM",
    "root: capset": "EPERM",
    "execute: become": "ENOENT",
    "socket: listen on one that is there": "EINVAL",
    "socket: accept at one that is there": "EINVAL",
    "socket: connect one that is there": "ENOENT",
    "socket: pass a descriptor": "EFAULT",
    "read: a handle": "EINVAL",
    "write: the configuration": "EACCES",
    "others: read memory": "EFAULT",
}
"""What the kernel refuses the daemon's user in any case, and how, or what finds nothing there to work on; all else
succeeds where there is no sandbox."""


def test_intruder_in_the_sandbox_can_do_nothing_but_the_job(
    lab: Lab, taken: Takes, victim: int, elsewhere: Path
) -> None:
    lab.mint("laptop")
    lab.listen(22)
    lab.configure(sandbox="required")
    daemon, results = taken("try", **facts(lab, victim, elsewhere))
    jobs = {name: result for name, result in results.items() if name.startswith("job")}
    assert set(jobs.values()) == {"done"}, jobs
    refused = {name: result for name, result in results.items() if name not in jobs}
    assert set(refused.values()) <= {"ENOSYS", "EACCES", "EXDEV"}, refused
    by_seccomp = ("root", "execute", "socket", "others: s", "others: t", "others: r", "others: lim", "itself")
    assert {name for name, result in refused.items() if result != "ENOSYS" and name.startswith(by_seccomp)} == set()
    assert sorted(path.name for path in elsewhere.iterdir()) == ["readable", "removable", "writable"]
    assert all(path.read_text().startswith("what is none") for path in elsewhere.iterdir())
    assert os.path.exists(f"/proc/{victim}")
    lab.knock(HOST)
    assert lab.opens(HOST), "after all that it still does its job"
    assert daemon.stop() == 0


def test_the_same_intruder_without_the_sandbox(lab: Lab, taken: Takes, victim: int, elsewhere: Path) -> None:
    """So that the test above can fail: what it shows as refused is refused by the sandbox."""
    lab.mint("laptop")
    lab.configure(sandbox="off")
    daemon, results = taken("try", **facts(lab, victim, elsewhere))
    daemon.says("sandbox = off: an intruder in this process can do all that its user can")
    # In a chroot, and by some distributions, this is refused to every ordinary user.
    results.pop("root: namespace of its own")
    assert {name: result for name, result in results.items() if result != "done"} == ALSO_WITHOUT


def test_doors_a_minute(lab: Lab, taken: Takes) -> None:
    """The helper counts, a reload does not begin the count anew, and to be refused is no reason for it to end."""
    lab.mint("laptop")
    lab.configure(doors_per_minute="5")
    daemon, results = taken("doors", doors=8, seconds=DELAY)
    assert [results[f"{number}"] for number in range(5)] == ["done"] * 5
    refusal = "5 doors were opened within a minute, no more may be: raise doors_per_minute"
    assert [results[f"{number}"] for number in range(5, 8)] == [refusal] * 3
    assert {results[f"reload {number}"] for number in range(8)} == {"done"}
    lab.listen(22)
    lab.knock(HOST)
    daemon.says(f"knock of laptop not obeyed: {refusal}")
    assert not lab.connects(HOST)
    lab.configure(doors_per_minute="6")
    daemon.reload()
    daemon.says("reloaded")
    lab.knock(HOST)
    assert lab.opens(HOST), "six are, now"
    assert daemon.stop() == 0


@pytest.mark.parametrize(
    "beyond", [[6, 22, DELAY + 1], [6, 23, DELAY], [17, 22, DELAY]], ids=["too long", "port", "protocol"]
)
def test_order_beyond_the_policy_is_refused(lab: Lab, taken: Takes, beyond: list[int]) -> None:
    lab.mint("laptop")
    _, results = taken("doors", doors=1, seconds=DELAY, beyond=beyond)
    assert results["0"] == "done"
    assert re.search("no profile may open|seconds are more than", results["beyond"])
    assert "192.0.2.99" not in lab.run("server", "nft", "list", "table", "inet", "knockknock").stdout


def test_no_door_outlives_the_maximum(lab: Lab, taken: Takes) -> None:
    lab.mint("laptop")
    daemon, results = taken("doors", doors=3, seconds=DELAY)
    assert results["2"] == "done"
    listing = lab.run("server", "nft", "list", "set", "inet", "knockknock", "open4").stdout
    assert f"timeout {DELAY}s" in listing
    os.kill(daemon.process.pid, 19)  # it need not do anything for that
    time.sleep(DELAY + 0.5)
    assert "192.0.2." not in lab.run("server", "nft", "list", "set", "inet", "knockknock", "open4").stdout
    os.kill(daemon.process.pid, 18)


def test_required_and_the_binding_is_missing(lab: Lab, taken: Takes) -> None:
    lab.mint("laptop")
    lab.configure(sandbox="required")
    daemon, _ = taken("nothing", ready=False, hide=HIDDEN)
    assert daemon.process.wait(10) == 1
    sentence = "there is no Python binding of libseccomp: apt install python3-seccomp, or pip install pyseccomp"
    assert sentence in daemon.log().splitlines()[-1]
    assert "knockknock" not in lab.ruleset()


def test_auto_and_the_binding_is_missing(lab: Lab, taken: Takes) -> None:
    lab.mint("laptop")
    lab.listen(22)
    daemon, _ = taken("nothing", hide=HIDDEN)
    daemon.says("the sandbox is not whole: there is no Python binding of libseccomp")
    lab.knock(HOST)
    assert lab.opens(HOST)


def status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: value.strip() for key, value in (line.split(":", 1) for line in lines)}


def test_every_format_and_a_new_profile_at_reload(lab: Lab) -> None:
    """The modules that a reload may import are imported before."""
    lab.listen(22)
    lab.configure(sandbox="required")
    daemon = lab.daemon()
    assert status(daemon.process.pid)["Seccomp"] == "2"
    for number, name in enumerate(("compact", "classic", "stealth")):
        lab.mint(name, "--format", name, port=4242 + number)
        daemon.reload()
        daemon.says(f"{number + 1} profile(s)")
        lab.knock(HOST)
        assert lab.opens(HOST), daemon.log()
    assert "not whole" not in daemon.log()
    assert daemon.stop() == 0


class Receiver:
    """A syslog daemon of few words."""

    def __init__(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        path.chmod(0o666)
        self.socket.settimeout(5)

    def hears(self, text: str) -> bytes:
        while text.encode() not in (message := self.socket.recv(4096)):
            pass
        return message


def test_syslog_goes_on_when_the_syslog_daemon_was_restarted(lab: Lab, taken: Takes) -> None:
    lab.mint("laptop")
    lab.listen(22)
    lab.configure(log="syslog", sandbox="required")
    path = lab.directory / "devlog"
    first = Receiver(path)
    daemon, _ = taken("nothing", syslog=str(path))
    assert first.hears("profile(s)").startswith(b"<30>knockknock-daemon[")
    lab.knock(HOST)
    first.hears("open tcp/22")
    first.socket.close()
    second = Receiver(path)
    lab.knock(HOST)
    second.hears("open tcp/22")
    second.socket.close()
    lab.knock(HOST)
    assert lab.opens(HOST), "nobody to tell is no reason not to"
    assert daemon.stop() == 0


def test_what_is_left_of_root(walled: Lab) -> None:
    """The helper is an ordinary user with one capability; what watches the rules is root with two, for good."""
    walled.mint("bounded")
    daemon = walled.daemon()
    held, root = status(daemon.helper), status(daemon.watch)
    net_admin, net_raw = 1 << 12, 1 << 13
    assert [int(held[f"Cap{kind}"], 16) for kind in ("Bnd", "Prm", "Eff", "Inh", "Amb")] == [net_admin] * 3 + [0, 0]
    assert held["Uid"].split() == held["Gid"].split() == ["65534"] * 4
    assert held["Groups"] == ""
    assert held["Seccomp"] == "2"
    assert [int(root[f"Cap{kind}"], 16) for kind in ("Bnd", "Prm", "Eff")] == [net_admin | net_raw] * 3
    assert [int(root[f"Cap{kind}"], 16) for kind in ("Inh", "Amb")] == [0, 0]
    for pid, what in ((daemon.helper, held), (daemon.watch, root)):
        assert what["NoNewPrivs"] == "1"
        assert "Max core file size        0                    0" in Path(f"/proc/{pid}/limits").read_text()
    opened = {os.readlink(link) for link in Path(f"/proc/{daemon.helper}/fd").iterdir()}
    assert sorted(one for one in opened if not one.startswith("socket:")) == [str(daemon.log_path)]
    assert len(opened) == 4, "two pairs, a socket to nf_tables, standard error"
    assert daemon.stop() == 0
    assert "knockknock" not in walled.ruleset(), "enough is left to take all away"


@pytest.fixture
def hostile_helper(lab: Lab) -> Callable[..., dict[str, Any]]:
    """Starts a helper with a stranger's code in it, with a setting of sandbox; returns the result of each attempt."""

    def take(sandbox: str, *, seccomp: bool = True) -> dict[str, Any]:
        lab.mint("laptop")
        package = lab.directory / "copy"
        shutil.copytree(ROOT / "knockknock", package / "knockknock", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(hostile.__file__, package / "knockknock")
        places = [place for place in sys.path if place.endswith("-packages")]
        with (package / "knockknock" / "root" / "helper.py").open("a") as file:
            file.write(hostile.APPENDED.format(places=places))
        if not seccomp:
            with (package / "knockknock" / "root" / "seccomp.py").open("a") as file:
                file.write("\n\ndef helper() -> bytes:\n    return b''\n")
        ours = start_watch(lab, package, lab.configure(sandbox=sandbox))
        while (said := ours.recv(1 << 16)).startswith(SURVEYED):
            pass
        found: dict[str, Any] = json.loads(said)
        pid, *_ = children(lab.processes[-1].pid)
        found["maps"] = Path(f"/proc/{pid}/maps").read_text()
        ours.close()
        assert lab.processes[-1].wait(5) == 0
        return found

    return take


def test_a_stranger_in_the_helper_can_change_the_firewall_and_nothing_else(
    hostile_helper: Callable[..., dict[str, Any]],
) -> None:
    results = hostile_helper("required")["results"]
    assert results.pop("job: the firewall") == "done"
    assert len(results) > 30
    assert set(results.values()) == {"ENOSYS"}, results


def test_landlock_alone_leaves_the_helper_no_file(hostile_helper: Callable[..., dict[str, Any]]) -> None:
    """As where there is no binding of libseccomp."""
    results = hostile_helper("auto", seccomp=False)["results"]
    assert (results["job: the firewall"], results["socket: a pair"]) == ("done", "done")
    files = ("read anybody's", "read its own code", "read its own memory map", "write", "make a directory")
    assert {name: results[f"file: {name}"] for name in files} == dict.fromkeys(files, "EACCES")


def test_the_same_stranger_without_walls(hostile_helper: Callable[..., dict[str, Any]]) -> None:
    """So that the tests above can fail."""
    results = hostile_helper("off")["results"]
    could = {
        "job: the firewall",
        "file: read anybody's",
        "file: read its own memory map",
        "file: write",
        "execute: a process",
        "execute: code in memory",
        "socket: to the network",
        "socket: to the routes",
        "socket: a pair",
    }
    assert {name for name, result in results.items() if result == "done"} >= could, results


HELPER = ["errors", "root", "root.helper", "root.netlink", "root.record", "root.record_limits"]


def test_lines_that_are_loaded_in_the_helper(hostile_helper: Callable[..., dict[str, Any]]) -> None:
    """All of ours, in the process that runs; and nothing of others that it has no use for."""
    found = hostile_helper("required")
    ours = [name for name in found["modules"] if name.split(".")[0] == "knockknock"]
    assert ours == ["knockknock", *(f"knockknock.{name}" for name in HELPER)]
    paths = [ROOT / f"{name.replace('.', '/')}.py" for name in ours]
    lines = sum(code_lines(path if path.exists() else path.with_suffix("") / "__init__.py") for path in paths)
    assert lines <= 290
    assert not {"json", "subprocess", "logging", "configparser", "cryptography"} & set(found["modules"])
    assert "nftables" not in found["maps"]


def memory(pid: int) -> Iterator[bytes]:
    """Yield the writable memory of a process."""
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", 0) as mem:
        for line in maps:
            place, mode, *_ = line.split()
            if mode.startswith("rw"):
                first, last = (int(end, 16) for end in place.split("-"))
                mem.seek(first)
                with contextlib.suppress(OSError):  # what the kernel itself has mapped there
                    yield mem.read(last - first)


def test_keys_are_in_the_daemon_alone_and_never_on_disk(lab: Lab) -> None:
    lab.mint("laptop")
    daemon = lab.daemon()
    daemon.reload()
    daemon.says("reloaded")
    for name in ("cipher.key", "mac.key"):
        text = Path(f"{lab.settings['profiles']}/laptop/{name}").read_text()
        key = parse_key(text, name)
        assert any(key in part for part in memory(daemon.process.pid)), "or the search finds nothing anywhere"
        for part in itertools.chain(memory(daemon.helper), memory(daemon.watch)):
            assert key not in part
            assert text.strip().encode() not in part
    held = status(daemon.process.pid)
    assert "may be swapped" in daemon.log() or int(held["VmLck"].split()[0]) > 1000


LOCK = """
import os, resource
from knockknock.server import privsep
limit = resource.getrlimit
resource.getrlimit = lambda which: ({limit}) if which == resource.RLIMIT_MEMLOCK else limit(which)
resource.setrlimit = lambda *_: exec("raise ValueError")
print(repr(privsep.lock_memory()), [line for line in open("/proc/self/status") if line.startswith("VmLck")])
"""


@pytest.mark.parametrize(
    ("limit", "said"),
    [("-1, -1", "^'' .*[0-9]{3,} kB"), ("65536, 65536", "^'keys may be swapped .*: start it with ulimit.* 0 kB")],
)
def test_memory_is_locked_where_there_is_no_limit(daemon_user: Any, limit: str, said: str) -> None:
    """The limit is only said to be lifted, because not every root may lift it; mlockall itself is real."""
    words = [sys.executable, "-c", LOCK.replace("{limit}", limit)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    assert re.search(said, done.stdout), done.stdout
