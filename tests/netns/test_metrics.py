"""The file for Prometheus: written by the daemon in its sandbox, read by prometheus_client's own parser."""

import os
import stat
import time
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from .lab import Lab, until

HOST = "10.77.0.1"


@pytest.fixture
def textfile(lab: Lab) -> Path:
    """Path of the file that node_exporter would read."""
    directory = lab.directory / "textfile"
    directory.mkdir()
    directory.chmod(0o777)
    lab.configure(textfile=f"{directory}/knockknock.prom", sandbox="required", source="nflog")
    return directory / "knockknock.prom"


def samples(path: Path) -> dict[tuple[str, ...], float]:
    families = list(text_string_to_metric_families(path.read_text()))
    assert all(family.documentation for family in families)
    return {(one.name, *one.labels.values()): one.value for family in families for one in family.samples}


def test_counts(lab: Lab, textfile: Path) -> None:
    lab.tell_all()
    lab.mint("laptop")
    daemon = lab.daemon()
    until(textfile.exists)
    assert stat.S_IMODE(os.stat(textfile).st_mode) == 0o644
    first = samples(textfile)
    assert first["knockknock_knocks_refused_total", "replay"] == 0
    lab.knock(HOST)
    (lab.home / ".knockknock" / HOST / "counter").write_text("0\n")
    lab.knock(HOST)
    lab.knock(HOST, "--close")
    until(lambda: samples(textfile).get(("knockknock_doors_closed_total",)) == 1, 10)
    found = {key: value for key, value in samples(textfile).items() if key[0] != "knockknock_info"}
    assert found == {
        ("knockknock_knocks_accepted_total", "laptop"): 2,
        ("knockknock_knocks_refused_total", "replay"): 1,
        ("knockknock_knocks_refused_total", "not permitted"): 0,
        ("knockknock_knocks_refused_total", "unknown"): 0,
        ("knockknock_knocks_refused_total", "unexamined"): 0,
        ("knockknock_knocks_refused_total", "ahead"): 0,
        ("knockknock_knocks_refused_total", "expired"): 0,
        ("knockknock_sources_blocked_total",): 0,
        ("knockknock_knocks_failed_total",): 0,
        ("knockknock_doors_opened_total",): 1,
        ("knockknock_doors_closed_total",): 1,
        ("knockknock_syns_passed_over",): 0,
    }
    assert os.listdir(textfile.parent) == [textfile.name], "what is written aside is renamed"
    assert daemon.stop() == 0


def test_many_events_are_one_write(lab: Lab, textfile: Path) -> None:
    lab.mint("laptop")
    daemon = lab.daemon()
    until(textfile.exists)
    written = os.stat(textfile).st_mtime_ns
    for _ in range(3):
        lab.knock(HOST)
    until(lambda: daemon.log().count("open tcp/22") == 3)
    until(lambda: samples(textfile).get(("knockknock_doors_opened_total",)) == 3, 10)
    assert os.stat(textfile).st_mtime_ns - written >= 4_900_000_000


def test_a_directory_that_may_not_be_written_to(lab: Lab, textfile: Path) -> None:
    lab.mint("laptop")
    lab.listen(22)
    textfile.parent.chmod(0o755)
    daemon = lab.daemon()
    daemon.says(f"textfile {textfile} cannot be written: Permission denied")
    lab.knock(HOST)
    assert lab.opens(HOST)
    time.sleep(0.1)
    assert daemon.log().count("cannot be written") == 1


def test_a_directory_that_is_not_there(lab: Lab) -> None:
    lab.configure(textfile="/nonexistent/knockknock.prom")
    daemon = lab.daemon(ready=False)
    assert daemon.process.wait(10) == 1
    assert daemon.log().splitlines()[-1].endswith("textfile: there is no directory /nonexistent")
