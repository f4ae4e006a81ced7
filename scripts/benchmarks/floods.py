"""Legitimate knocks during floods of junk: how many open their door at the first try."""

import subprocess
import sys
import threading
import time
from pathlib import Path

from .lab import CLIENT, ROOT, Lab, answered, inside, proc

KNOCKS, PAUSE, PATIENCE = 20, 0.24, 3.0
"""Legitimate knocks in one flood; seconds between two, and until a door that is still shut counts as one that stays so."""
RATES = {2000: "2,000/s", 10_000: "10,000/s", 0: "full speed"}


def flooder(lab: Lab, kind: str, port: int, rate: int, seconds: float, sources: str) -> subprocess.Popen[str]:
    """An attacker who is ready; a line on his standard input makes him begin."""
    words = [str(Path(__file__).with_name("flooder.py")), *lab.macs, kind, str(port), str(rate), str(seconds), sources]
    with inside(CLIENT):
        child = subprocess.Popen([sys.executable, *words], stdin=-1, stdout=-1, text=True, env={"PYTHONPATH": str(ROOT)})
    assert child.stdout
    if child.stdout.readline() != "ready\n":
        raise RuntimeError("the flooder did not start")
    return child


def flood(lab, tool, rate: int, sources: str, knocks: int = KNOCKS):
    opened = []

    def knock(source: str, start: int) -> None:
        with inside(CLIENT):
            client = subprocess.Popen(tool.client(source), env=tool.environment, stdout=subprocess.DEVNULL)
            found = answered(source, PATIENCE, 0.01)
            client.wait()
        opened.append((found - start) / 1e6 if found else None)

    attacker = flooder(lab, tool.kind, tool.port, rate, (knocks + 1) * PAUSE, sources)
    attacker.stdin.write("go\n")
    attacker.stdin.flush()
    time.sleep(0.02)
    threads = []
    for _ in range(knocks):
        source = lab.source()
        one = threading.Thread(target=knock, args=(source, time.time_ns()))
        one.start()
        threads.append(one)
        time.sleep(PAUSE)
    for one in threads:
        one.join()
    lab.accept()
    sent, seconds = attacker.communicate()[0].split()
    return opened, int(sent) / float(seconds)
