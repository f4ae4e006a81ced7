"""Living with it: a real login, reloads, profiles of knockknock 0.8, full disks, several clients at once."""

import base64
import contextlib
import json
import os
import signal
import socket
import struct
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from knockknock.profiles.counters import read_counter
from knockknock.server import instance

from .lab import KNOCK_PORT, Lab, inside, until
from .test_enrolment import replay

HOST = "10.77.0.1"
VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "syn.json").read_text())["cases"]


def client_profile(lab: Lab) -> Path:
    return lab.home / ".knockknock" / HOST


def test_ssh_login(lab: Lab) -> None:
    """A real sshd behind the closed door: no answer, a knock, a login; and the next login needs a knock of its own."""
    ssh = lab.sshd()
    lab.mint("laptop")
    daemon = lab.daemon()
    ssh += ["-o", "ConnectTimeout=1", f"root@{HOST}", "echo", "hello from", "$SSH_CONNECTION"]
    assert lab.run("client", *ssh, check=False).returncode == 255
    lab.knock(HOST)
    daemon.says("open tcp/22")
    assert lab.run("client", *ssh).stdout.startswith("hello from 10.77.0.2")
    assert lab.run("client", *ssh, check=False).returncode == 255


def test_reload_takes_new_profiles_and_keeps_the_old_when_the_new_are_bad(lab: Lab) -> None:
    lab.listen(22)
    lab.listen(8080)
    lab.mint("laptop")
    daemon = lab.daemon()
    lab.mint("phone", "--ports", "tcp/8080", port=4343, hosts=("10.77.1.1",))
    daemon.reload()
    daemon.says("2 profile(s), knock port(s) tcp/4242, tcp/4343")
    lab.knock("10.77.1.1", ports=("8080",))
    assert lab.opens("10.77.1.1", 8080), daemon.log()
    good = Path(lab.configure()).read_text()
    Path(lab.configure()).write_text(good + "dealy = 3\n")
    daemon.reload()
    line = len(good.splitlines()) + 1
    daemon.says(
        f"not reloaded, the old configuration stays: {lab.directory}/etc/config:{line}: there is no key 'dealy'"
    )
    lab.knock(HOST)
    assert lab.opens(HOST)


def test_reload_takes_a_profile_away(lab: Lab) -> None:
    lab.listen(22)
    lab.mint("laptop")
    daemon = lab.daemon()
    Path(lab.settings["profiles"]).joinpath("laptop").rename(lab.directory / "revoked")
    daemon.reload()
    daemon.says("0 profile(s), knock port(s) none")
    lab.knock(HOST)
    time.sleep(0.2)
    assert not lab.connects(HOST)


def test_a_door_of_a_revoked_profile_is_shut(lab: Lab) -> None:
    """When the revocation has come to its end, also if nobody else may open that port."""
    lab.listen(22)
    lab.mint("laptop")
    lab.configure(delay="60", single_use="no")
    daemon = lab.daemon()
    lab.knock(HOST)
    assert lab.opens(HOST)
    genprofile = [*lab.program("knockknock-genprofile"), "--config", lab.configure()]
    lab.run("server", *genprofile, "revoke", "laptop", "--reload")
    assert not lab.connects(HOST)
    assert "laptop: close tcp/22 for 10.77.0.2, as the profile was removed [event=closed reason=revoked" in daemon.log()


def test_one_broken_profile_does_not_stop_the_others(lab: Lab) -> None:
    lab.listen(22)
    lab.mint("broken")
    lab.mint("laptop")
    Path(lab.settings["profiles"], "loop").symlink_to("loop")
    config = Path(lab.settings["profiles"]) / "broken" / "config"
    config.write_text(config.read_text() + "colour = red\n")
    daemon = lab.daemon()
    daemon.says(f"profile broken: {config}:5: there is no key 'colour'")
    lab.knock(HOST)
    assert lab.opens(HOST)


def make_08(directory: Path, known: dict[str, str], owner: str = "root") -> None:
    """A profile directory as knockknock 0.8 writes it."""
    directory.mkdir(parents=True, mode=0o700)
    for name in ("cipher", "mac"):
        (directory / f"{name}.key").write_text(base64.b64encode(bytes.fromhex(known[f"{name}_key"])).decode() + "\n")
    (directory / "counter").write_text("0\n")
    (directory / "config").write_text(f"[main]\nknock_port = {KNOCK_PORT}\n")
    for file in directory.iterdir():
        file.chmod(0o600)
    subprocess.run(["chown", "-R", owner, str(directory)], check=True)


def test_profile_of_08_on_both_sides(lab: Lab) -> None:
    known = next(
        case for case in VECTORS if case["format"] == "classic" and case["counter"] == 0 and case["port"] == 22
    )
    make_08(Path(lab.settings["profiles"]) / "old", known)
    make_08(client_profile(lab), known)
    lab.listen(22)
    lab.listen(8888)
    (lab.directory / "etc" / "config").write_text("")
    lab.settings["error_window"] = "20"
    daemon = lab.daemon()
    lab.knock(HOST)
    assert lab.opens(HOST), daemon.log()
    daemon.reload()
    daemon.says("old: kept as it was, whatever its files say now, because only root may read it")
    lab.knock(HOST, ports=("8888",))
    assert lab.opens(HOST, 8888), "a profile of 0.8 may open any TCP port"
    daemon.stop()
    again = lab.daemon()
    lab.knock(HOST)
    assert lab.opens(HOST), again.log()


def test_a_close_shuts_no_door_of_another_profile(lab: Lab) -> None:
    """Behind one NAT, or with a forged source, it would be a way to shut others out."""
    lab.listen(22)
    lab.configure(delay="60")
    lab.mint("laptop", hosts=(HOST,))
    lab.mint("phone", hosts=("10.77.1.1",))
    daemon = lab.daemon()
    lab.knock(HOST)
    daemon.says("laptop: open tcp/22 for 10.77.0.2")
    lab.knock("10.77.1.1", "--close")
    daemon.says("knock of phone not obeyed: laptop has it open, too")
    assert lab.connects(HOST)
    lab.knock(HOST)
    until(lambda: daemon.log().count("laptop: open tcp/22") == 2)
    lab.knock(HOST, "--close")
    daemon.says("laptop: close tcp/22 for 10.77.0.2")
    assert not lab.connects(HOST)


def starting(lab: Lab) -> tuple[subprocess.Popen[str], Path]:
    """A daemon that has just locked its state directory, and its log."""
    log = lab.directory / "log"
    with log.open("w") as file:
        words = [*lab.program("knockknock-daemon"), "--config", lab.configure()]
        process = lab.start("server", *words, stdout=file, stderr=file, env=lab.environment())
    until(lambda: instance.daemon(lab.settings["state"]) == process.pid)
    return process, log


def test_a_reload_in_the_middle_of_the_start_is_done_after_it(lab: Lab) -> None:
    lab.mint("laptop")
    lab.listen(22)
    process, log = starting(lab)
    while "profile(s), knock port(s)" not in log.read_text():
        process.send_signal(signal.SIGHUP)
        assert process.poll() is None, log.read_text()
        time.sleep(0.001)
    until(lambda: "reloaded" in log.read_text())
    lab.knock(HOST)
    assert lab.opens(HOST), log.read_text()


def test_to_be_stopped_in_the_middle_of_the_start_is_no_error(lab: Lab) -> None:
    lab.mint("laptop")
    process, log = starting(lab)
    process.terminate()
    assert process.wait(10) == 0, log.read_text()
    assert log.read_text().endswith("stopped\n")
    assert "knockknock" not in lab.ruleset()


def test_signals_to_a_helper_that_has_just_been_started_are_ignored(lab: Lab) -> None:
    """systemd sends them to all processes of a unit; the helper ends with the daemon, whatever becomes of that."""
    lab.mint("laptop")
    lab.listen(22)
    process, log = starting(lab)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while "profile(s), knock port(s)" not in log.read_text():
        for child in children.read_text().split()[:1]:  # others are what a library looks for itself with
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                os.kill(int(child), number)
        assert process.poll() is None, log.read_text()
    lab.knock(HOST)
    assert lab.opens(HOST), log.read_text()
    process.terminate()
    assert process.wait(10) == 0


def test_no_knock_ends_a_process_whatever_became_of_its_profile(lab: Lab) -> None:
    """The daemon keeps a profile that it cannot read any more; what root has narrowed it to is the helper's to say."""
    lab.listen(22)
    lab.listen(23)
    lab.mint("laptop", "--ports", "tcp/22-23")
    daemon = lab.daemon()
    place = Path(lab.settings["profiles"]) / "laptop"
    (place / "config").write_text((place / "config").read_text().replace("tcp/22-23", "tcp/22"))
    subprocess.run(["chown", "-R", "root:root", str(place)], check=True)
    subprocess.run(["chmod", "-R", "go=", str(place)], check=True)
    for number in (1, 2):
        daemon.reload()
        until(lambda number=number: daemon.log().count("reloaded") == number)  # type: ignore[misc]  # a default of a lambda
    daemon.says("laptop: kept as it was, whatever its files say now, because only root may read it")
    lab.knock(HOST, ports=("23",))
    daemon.says("knock of laptop not obeyed: no profile may open protocol 6 port 23")
    assert not lab.connects(HOST, 23)
    lab.knock(HOST)
    assert lab.opens(HOST), daemon.log()
    assert daemon.stop() == 0


def test_client_of_08(lab: Lab) -> None:
    """Knocks as version 0.8 sends them: hping3 with the fields of the sealed request."""
    known = [
        case for case in VECTORS if case["format"] == "classic" and case["counter"] in (0, 1) and case["port"] == 22
    ]
    known = sorted({case["counter"]: case for case in known}.values(), key=lambda case: case["counter"])
    make_08(Path(lab.settings["profiles"]) / "old", known[0])
    lab.listen(22)
    daemon = lab.daemon()
    for case in known:
        ident, sequence, acknowledgment, window = struct.unpack("!HIIH", bytes.fromhex(case["sealed"]))
        fields = ["-N", ident, "-w", window, "-M", sequence, "-L", acknowledgment]
        lab.run("client", "hping3", "-S", "-c", "1", "-p", str(KNOCK_PORT), *map(str, fields), HOST, check=False)
        assert lab.opens(HOST), daemon.log()
        assert not lab.connects(HOST)


def test_full_disk_opens_nothing(lab: Lab) -> None:
    lab.listen(22)
    lab.mint("laptop")
    state = Path(lab.settings["state"])
    daemon_user = state.owner()
    small = lab.directory / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k,mode=700", "small", str(small)], check=True)
    try:
        subprocess.run(["cp", "-p", str(state / "laptop"), str(small)], check=True)
        subprocess.run(["chown", daemon_user, str(small)], check=True)
        lab.configure(state=str(small))
        daemon = lab.daemon()
        filler = small / "filler"
        with contextlib.suppress(OSError):
            filler.write_bytes(bytes(1 << 16))
        lab.knock(HOST)
        daemon.says("knock of laptop not obeyed: the counter")
        assert not lab.connects(HOST)
        assert (small / "laptop").read_text() == "0\n"
        filler.unlink()
        lab.knock(HOST)
        assert lab.opens(HOST), daemon.log()
        subprocess.run(["mount", "-o", "remount,ro", str(small)], check=True)
        lab.knock(HOST)
        daemon.says("Read-only file system")
        assert not lab.connects(HOST)
        assert read_counter(str(small / "laptop")) == 2
    finally:
        for process in lab.processes:
            process.kill()
            process.wait()
        subprocess.run(["umount", str(small)], check=True)


def test_two_clients_at_once_never_share_a_counter(lab: Lab) -> None:
    lab.mint("laptop")
    with inside(lab.ns("server")):
        tap = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800))
    with tap:
        tap.bind(("s0", 0x0800))
        tap.settimeout(1)
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda _: lab.knock(HOST, ports=("22", "22", "22")), range(16)))
        seen = [packet for packet in iter_packets(tap) if packet[9] == 6]
    assert len(seen) == 48
    assert len({packet[4:6] + packet[24:28] for packet in seen}) == 48
    assert (client_profile(lab) / "counter").read_text() == "48\n"


def iter_packets(tap: socket.socket) -> list[bytes]:
    found = []
    try:
        while True:
            found.append(tap.recv(2048))
    except TimeoutError:
        return found


def test_client_without_room_for_its_counter_sends_nothing(lab: Lab) -> None:
    lab.mint("laptop")
    small = client_profile(lab)
    files = {file.name: file.read_text() for file in small.iterdir()}
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24k,mode=700", "small", str(small)], check=True)
    try:
        for name, text in files.items():
            (small / name).write_text(text)
            (small / name).chmod(0o600)
        with contextlib.suppress(OSError):
            (small / "filler").write_bytes(bytes(1 << 16))
        with inside(lab.ns("server")):
            tap = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800))
        with tap:
            tap.bind(("s0", 0x0800))
            tap.settimeout(0.3)
            done = lab.knock(HOST, check=False)
            assert done.returncode == 1
            assert done.stderr.startswith("knockknock: the counter ")
            assert done.stderr.count("\n") == 1
            assert iter_packets(tap) == []
        assert (small / "counter").read_text() == "0\n"
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_background_with_a_pid_file(lab: Lab) -> None:
    lab.listen(22)
    lab.mint("laptop")
    pid_file = lab.directory / "pid"
    lab.configure(log="stderr")
    command = [
        *lab.program("knockknock-daemon"),
        "--config",
        lab.configure(),
        "--daemonize",
        "--pid-file",
        str(pid_file),
    ]
    lab.run("server", *command)
    pid = int(pid_file.read_text())
    try:
        lab.knock(HOST)
        assert lab.opens(HOST), "when the command ends with 0, it listens"
        assert lab.run("server", *command, check=False).returncode == 1
    finally:
        os.kill(pid, 15)
        until(lambda: not Path(f"/proc/{pid}").exists())
    assert "knockknock" not in lab.ruleset()


def test_a_copied_profile_is_no_second_chance(lab: Lab) -> None:
    """`--check` and the list name both; the daemon hears the older one; a replay opens nothing."""
    lab.tell_all()
    lab.mint("moxie")
    place, state = Path(lab.settings["profiles"]), Path(lab.settings["state"])
    subprocess.run(["cp", "-r", str(place / "moxie"), str(place / "moxie.bak")], check=True)
    subprocess.run(["cp", "-p", str(state / "moxie"), str(state / "moxie.bak")], check=True)
    for words in (["knockknock-daemon", "--check"], ["knockknock-genprofile", "--list"]):
        done = lab.run("server", *lab.program(words[0]), *words[1:], "--config", lab.configure(), check=False)
        assert done.returncode == 1
        assert "profile moxie.bak: it has the secrets of moxie, " in done.stderr
    subprocess.run(["chgrp", "-R", "knockknock", str(place)], check=True)
    subprocess.run(["chmod", "-R", "g+rX,o=", str(place)], check=True)
    lab.listen(22)
    daemon = lab.daemon()
    daemon.says("profile moxie.bak: it has the secrets of moxie, ")
    capture = lab.directory / "knock.pcap"
    lab.knock(HOST, "--pcap", str(capture))
    assert lab.opens(HOST), daemon.log()
    daemon.reload()
    daemon.says("reloaded")
    for number in range(2):
        replay(lab, capture)
        until(lambda: daemon.log().count("refused replay: ") > number)  # noqa: B023  # called at once
    assert not lab.connects(HOST)
    assert daemon.stop() == 0


def test_a_reload_believes_no_file_that_others_may_write_to(lab: Lab) -> None:
    """The old configuration stays, and the log says which file it is and what mends it."""
    lab.mint("laptop")
    lab.listen(22)
    daemon = lab.daemon()
    config = Path(lab.settings["profiles"]) / "laptop" / "config"
    config.write_text(config.read_text().replace("tcp/22", "tcp/22, tcp/1-1000"))
    config.chmod(0o660)
    daemon.reload()
    daemon.says(f"not reloaded, the old configuration stays: {config} belongs to root and has mode 0660, so others")
    daemon.says(f"chmod go-w {config}")
    lab.knock(HOST)
    assert lab.opens(HOST), daemon.log()
    config.chmod(0o640)
    daemon.reload()
    daemon.says(f"reloaded {lab.directory}")
    assert daemon.stop() == 0
