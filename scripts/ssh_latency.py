"""Measures ssh through ProxyCommand knockknock --stdio against plain ssh to an open port of the same sshd."""

import argparse
import os
import statistics
import subprocess
import time

from tests.netns.lab import Lab, until

HOST, CLOSED, OPEN = "10.77.0.1", 22, 2200


def serve(lab: Lab, source: str) -> list[str]:
    """Start sshd on both ports and the daemon; the ssh command, without port and host."""
    keys = lab.directory / "ssh"
    keys.mkdir()
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(keys / name)], check=True)
    os.makedirs("/run/sshd", exist_ok=True)
    options = [f"HostKey={keys}/host", f"AuthorizedKeysFile={keys}/user.pub", "StrictModes=no", "UsePAM=no"]
    options += ["PidFile=none", "UseDNS=no", f"Port={CLOSED}", f"Port={OPEN}"]
    lab.start("server", "/usr/sbin/sshd", "-D", "-f", "/dev/null", *(word for one in options for word in ("-o", one)))
    lab.run("server", "nft", "add", "rule", "inet", "guard", "input", "tcp", "dport", str(OPEN), "accept")
    until(lambda: lab.run("server", "ss", "-Hltn", f"sport = :{OPEN}").stdout)
    lab.configure(source=source)
    lab.mint("laptop")
    lab.daemon()
    ssh = ["ssh", "-F", "none", "-i", str(keys / "user"), "-o", "StrictHostKeyChecking=no", "-o", "LogLevel=ERROR"]
    return [*ssh, "-o", "UserKnownHostsFile=/dev/null"]


def login(lab: Lab, command: list[str]) -> float:
    """Milliseconds of one login that runs nothing, with the start of ssh itself."""
    full = ["ip", "netns", "exec", lab.ns("client"), *command, f"root@{HOST}", "true"]
    begin = time.perf_counter()
    subprocess.run(full, env=lab.environment(), stdin=subprocess.DEVNULL, check=True)
    return (time.perf_counter() - begin) * 1000


def main() -> None:
    parser = argparse.ArgumentParser(prog="ssh-latency", description=__doc__)
    parser.add_argument("--rounds", type=int, default=30, metavar="N", help="logins of each kind (%(default)s)")
    parser.add_argument("--source", choices=["kmsg", "nflog"], default="kmsg", help="of the daemon (%(default)s)")
    options = parser.parse_args()
    lab = Lab()
    try:
        lab.guard("nftables")
        ssh = serve(lab, options.source)
        proxy = " ".join(lab.program("knockknock")) + " -p %p --stdio %h"
        kinds = {
            "plain ssh, open port": [*ssh, "-p", str(OPEN)],
            "ssh through knockknock": [*ssh, "-p", str(CLOSED), "-o", f"ProxyCommand={proxy}"],
        }
        taken: dict[str, list[float]] = {kind: [] for kind in kinds}
        for number in range(options.rounds + 1):
            for kind, command in kinds.items():  # in turns, so that what else happens here meets both
                milliseconds = login(lab, command)
                if number:  # the first one fills caches
                    taken[kind].append(milliseconds)
    finally:
        lab.close()
    print(f"{'milliseconds of a login':26} {'median':>8} {'lowest':>8} {'90 %':>8}")
    for kind, times in taken.items():
        ninety = sorted(times)[int(len(times) * 0.9)]
        print(f"{kind:26} {statistics.median(times):8.1f} {min(times):8.1f} {ninety:8.1f}")
    first, second = (statistics.median(times) for times in taken.values())
    print(f"knockknock adds {second - first:.1f} ms (medians of {options.rounds} logins each, source {options.source})")


if __name__ == "__main__":
    main()
