"""One-time passwords by UDP: our client, and what xt_pknock's users send, with bash, openssl and nc."""

import json
import re
import subprocess
import time
from pathlib import Path

import pytest

from .lab import Daemon, Lab, until

SERVER = {4: "10.77.0.1", 6: "fd77:0::1"}
CLIENT = {4: "10.77.0.2", 6: "fd77:0::2"}
PORT = 4747
"""The knock port here alone."""
SENDER = """
set -euo pipefail
secret=$1 from=$2 to=$3 port=$4 minute=$5
bytes=$(printf '%02x' ${from//./ }; printf '%08x' "$minute" | sed 's/\\(..\\)\\(..\\)\\(..\\)\\(..\\)/\\4\\3\\2\\1/')
echo -n "$bytes" | xxd -r -p | openssl dgst -r -sha256 -mac HMAC -macopt key:"$secret" | cut -c1-64 |
    nc -u -q 0 "$to" "$port"
"""
"""As xt_pknock's documentation has it: the address, the minute as a little-endian machine has it; a newline behind."""


def ready(lab: Lab, name: str = "laptop", *, ports: str = "tcp/22", layout: str = "portable") -> Daemon:
    """A daemon that listens by NFLOG, and a profile."""
    lab.configure(source="nflog")
    lab.mint(name, "--scheme", "otp", "--otp-layout", layout, "--ports", ports, port=PORT)
    daemon = lab.daemon()
    daemon.says(f"knock port(s) udp/{PORT}")
    return daemon


def secret(lab: Lab, name: str) -> str:
    return (Path(lab.settings["profiles"]) / "laptop" / name).read_text().strip()


def minute() -> int:
    """The Unix minute, with time enough left in it for a few knocks."""
    while time.time() % 60 > 55:
        time.sleep(0.1)
    return int(time.time()) // 60


def send(lab: Lab, key: str, *, source: str = CLIENT[4], at: int | None = None, host: str = "client") -> None:
    """Send as xt_pknock's users do."""
    when = str(minute() if at is None else at)
    to = SERVER[4] if host == "client" else "10.77.1.1"
    lab.run(host, "bash", "-c", SENDER, "send", key, source, to, str(PORT), when)


def plain_knock(lab: Lab, host: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Knock as somebody who may send nothing that others may not."""
    words = ["setpriv", "--inh-caps=-all", "--bounding-set=-all", *lab.program("knockknock"), *options, host]
    return lab.run("client", *words, check=False)


@pytest.mark.parametrize(("layout", "family"), [("portable", 4), ("portable", 6), ("pknock", 4)])
def test_our_client(walled: Lab, layout: str, family: int) -> None:
    """A knock without privilege opens once; a second one in the same minute is a replay."""
    name = f"{layout}{family}"
    listener, daemon, host = walled.listen(22), ready(walled, name, layout=layout), SERVER[family]
    assert not walled.connects(host)
    minute()
    done = plain_knock(walled, host)
    assert (done.returncode, done.stderr) == (0, "")
    daemon.says(f"{name}: open tcp/22 for")
    assert walled.opens(host), daemon.log()
    assert not walled.connects(host), "a second connection came in"
    plain_knock(walled, host)
    daemon.says("refused replay")
    assert not walled.connects(host)
    assert daemon.stop() == 0
    listener.close()


def test_pknock_knows_no_ipv6(lab: Lab) -> None:
    lab.mint("laptop", "--scheme", "otp", "--otp-layout", "pknock", port=PORT)
    done = plain_knock(lab, SERVER[6])
    assert done.returncode == 1
    assert "knows IPv4 only" in done.stderr


def test_documented_client(lab: Lab) -> None:
    """Datagrams of xt_pknock's users open a port; the same ones again do not, with a restart in between or without."""
    lab.listen(22)
    daemon = ready(lab, layout="pknock")
    now, key = minute(), secret(lab, "opensecret")
    send(lab, key, at=now)
    daemon.says("laptop: open tcp/22 for")
    assert lab.opens(SERVER[4]), daemon.log()
    send(lab, key, at=now)
    daemon.says("refused replay")
    daemon.kill_all()
    again = lab.daemon()
    send(lab, key, at=now)
    again.says("refused replay")
    assert not lab.connects(SERVER[4])
    send(lab, key, at=now + 1)  # its clock is a little ahead
    again.says("laptop: open tcp/22 for")
    assert lab.opens(SERVER[4]), again.log()


def test_what_opens_nothing(lab: Lab) -> None:
    """Another minute, another address, another secret; and the daemon goes on."""
    lab.listen(22)
    daemon = ready(lab, layout="pknock")
    now, key = minute(), secret(lab, "opensecret")
    for number, words in enumerate(({"at": now - 3}, {"at": now + 3}, {"source": "10.77.1.2"}), 1):
        send(lab, key, **words)  # type: ignore[arg-type]  # each is one argument of send()
        until(lambda wanted=number: daemon.log().count("refused unknown") == wanted)  # type: ignore[misc]  # a default
    send(lab, key, source=CLIENT[4], host="other", at=now)
    until(lambda: daemon.log().count("refused unknown") == 4)
    send(lab, "not the secret", at=now)
    until(lambda: daemon.log().count("refused unknown") == 5)
    assert not lab.connects(SERVER[4])
    assert not lab.connects("10.77.1.1", host="other")
    send(lab, key, at=now)
    daemon.says("laptop: open tcp/22 for")
    assert lab.opens(SERVER[4]), daemon.log()


def test_close_and_status(lab: Lab) -> None:
    """A datagram opens all ports of its profile; --status --source tells of them; the other secret closes them."""
    lab.configure(single_use="no", delay="60")
    daemon = ready(lab, ports="tcp/22,tcp/80-81")
    for port in (22, 80, 81):
        lab.listen(port)
    asked = [*lab.program("knockknock-daemon"), "--config", lab.configure(), "--status", "--source"]

    def doors(source: str) -> tuple[int, str]:
        done = lab.run("server", *asked, source, check=False)
        return done.returncode, done.stdout

    assert doors(CLIENT[4])[0] == 1
    minute()
    assert plain_knock(lab, SERVER[4], "-p", "22").returncode == 0
    daemon.says("laptop: open tcp/81 for")
    for port in (22, 80, 81):
        assert lab.opens(SERVER[4], port), daemon.log()
        status, text = doors(CLIENT[4])
        assert status == 0
        assert f"tcp/{port}" in text
    assert doors("10.77.1.2")[0] == 1
    everything = lab.run("server", *asked[:-1], "--json").stdout
    assert json.loads(everything)["profiles"][0]["last_use"] is not None
    assert plain_knock(lab, SERVER[4], "--close").returncode == 0
    daemon.says("laptop: close tcp/81")
    for port in (22, 80, 81):
        assert not lab.connects(SERVER[4], port)


@pytest.mark.kernel_log
def test_other_sources_are_refused(lab: Lab) -> None:
    """A LOG line has no payload: the profile is refused at the start, in a sentence, and not heard."""
    lab.configure(source="kmsg")
    lab.mint("laptop", "--scheme", "otp", port=PORT)
    daemon = lab.daemon()
    daemon.says("profile laptop: a knock by otp portable needs a source that gives payload: set source = nflog")
    daemon.says("0 profile(s)")


def test_rule_limits_each_source(lab: Lab) -> None:
    """A flooder does not reach the daemon; another source does meanwhile."""
    lab.listen(22)
    daemon = ready(lab)
    junk = "for i in {1..500}; do echo -n $i >/dev/udp/10.77.1.1/" + str(PORT) + "; done"
    lab.run("other", "bash", "-c", junk)
    minute()
    plain_knock(lab, SERVER[4])
    daemon.says("laptop: open tcp/22 for")
    assert lab.opens(SERVER[4]), daemon.log()
    time.sleep(1.1)  # the next one tells how many were not told of
    lab.run("other", "bash", "-c", f"echo >/dev/udp/10.77.1.1/{PORT}")
    daemon.says("more packets")
    assert 1 <= daemon.log().count("refused unknown: knock from 10.77.1.2") <= 10
    counted = re.search(r"([0-9]+) more packets", daemon.log())
    assert counted
    assert int(counted[1]) < 400, "the rule let the whole flood through"
