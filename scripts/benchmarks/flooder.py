"""Sends junk as fast as one core can, or at a rate: the attacker of floods.py, in a process of its own.

usage: flooder.py SERVER-MAC CLIENT-MAC SERVER syn|udp PORT PACKETS-A-SECOND|0 SECONDS one|spoofed

Says "ready", waits for a line, sends for so many seconds or until the next line, and prints packets and seconds.
"""

import base64
import ctypes
import os
import random
import select
import socket
import struct
import sys
import time

from knockknock.client.syn_template import kernel_syn
from knockknock.core import headers
from knockknock.core.headers import Carried

DIFFERENT = {"one": 2000, "spoofed": 100_000}
"""Packets that are made beforehand, and sent over and over: more sources than any of our sets holds."""
AT_ONCE = 64
SIZE = 204
"""Bytes of fwknop's own packets."""
_PACKET, _QDISC_BYPASS = 263, 20  # linux/socket.h, linux/if_packet.h
_MESSAGE = struct.Struct("@PIPNPNi4xI4x")
"""struct mmsghdr (recvmmsg(2)) of a machine with 64 bits."""


def junk(kind: str, port: int, source: bytes, server: bytes, template: bytes) -> bytes:
    """One packet from the IP header on, that is no knock of any tool and costs it the most work."""
    number = random.getrandbits
    if kind == "syn":
        return headers.knock(template, source, server, port, Carried(1 + number(15), number(32), 0, number(16)))
    body = base64.b64encode(random.randbytes(SIZE * 3 // 4))
    head = struct.pack("!BBHHHBBH", 0x45, 0, 28 + len(body), number(16), 0, 64, 17, 0) + source + server
    total = sum(struct.unpack("!10H", head))
    head = head[:10] + struct.pack("!H", ~(total % 0xFFFF) & 0xFFFF) + head[12:]
    return head + struct.pack("!HHHH", 1024 + number(15), port, 8 + len(body), 0) + body


def main() -> None:
    macs = b"".join(bytes.fromhex(mac.replace(":", "")) for mac in sys.argv[1:3])
    server, kind, sources = socket.inet_aton(sys.argv[3]), sys.argv[4], sys.argv[8]
    port, rate, seconds = int(sys.argv[5]), int(sys.argv[6]), float(sys.argv[7])
    template = kernel_syn(socket.AF_INET, 1460)
    count, one = DIFFERENT[sources], socket.inet_aton("10.77.9.9")
    # From the same network, but not from the addresses that knock: to silence those, who forges them needs no flood.
    others = (struct.pack("!I", 0x0A4E0000 + number) for number in random.sample(range(1 << 20), count))
    froms = others if sources == "spoofed" else (one for _ in range(count))
    frames = [macs + b"\x08\x00" + junk(kind, port, source, server, template) for source in froms]
    data = ctypes.create_string_buffer(b"".join(frames))
    size, place = len(frames[0]), ctypes.addressof(data)
    vectors = ctypes.create_string_buffer(b"".join(struct.pack("@PN", place + at * size, size) for at in range(count)))
    first = ctypes.addressof(vectors)
    messages = ctypes.create_string_buffer(
        b"".join(_MESSAGE.pack(0, 0, first + at * 16, 1, 0, 0, 0, 0) for at in range(count))
    )
    place = ctypes.addressof(messages)
    wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    wire.bind(("c0", 0))
    wire.setsockopt(_PACKET, _QDISC_BYPASS, 1)
    send = ctypes.CDLL(None).sendmmsg
    send.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int]
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    print("ready", flush=True)
    sys.stdin.readline()
    sent, at, start = 0, 0, time.monotonic()
    while (passed := time.monotonic() - start) < seconds and not select.select([0], [], [], 0)[0]:
        want = min(AT_ONCE, count - at, int(passed * rate) + 1 - sent if rate else AT_ONCE)
        if want <= 0:
            time.sleep(0.0005)
            continue
        done = send(wire.fileno(), place + at * _MESSAGE.size, want, 0)
        sent, at = sent + max(0, done), (at + max(0, done)) % count
    print(sent, f"{passed:.3f}", flush=True)


if __name__ == "__main__":
    main()
