"""Parses a line of the kernel's packet log into a Packet, in linear time. Pure.

The grammar is that of net/netfilter/nf_log_syslog.c, in its order and spelling, after a front: the text that syslog
daemons, journalctl, dmesg or /dev/kmsg write first. A line that differs anywhere is not ours: there is no search for
keys, so a header that an ICMP error quotes in brackets, or a message that quotes a knock, is never taken for one.

A remote party can write into messages of other programs (the user name of an ssh login, the path of a request), but
cannot turn one into a line of ours. The front of a line comes from the syslog daemon and the program's own name, and
each front of the grammar has the kernel's name in the place of the program's, or has no such place. So a text that
imitates the rest of a front would have to follow the date at once, or the date and one word that could be a host name.
A program's tag comes before its text, and is no host name: it ends in a colon or has brackets. The text of a program
without a tag does begin there, so the log file should hold kernel messages only. A line break, after which a text
would begin a line, is escaped or indented; where rsyslog fails to (in the first word of a message without a tag), it
writes a word before the rest, and no front begins with that.

Anybody who may send messages to the machine's syslog daemon, from another host too, or run `logger` on it, can forge
lines in the kernel's name, and any host name is accepted. That gives no more than a forged source address does: the
packet in the line still has to be a knock.
"""

import re
from binascii import unhexlify
from collections.abc import Iterator

from ..core.packet import ACK, FIN, PSH, RST, SYN, TCP, UDP, URG, Packet

PREFIX = "knockknock "
"""The prefix that the LOG rule writes before the packet."""

MAX_LINE = 2048
"""Bytes. The kernel's own line with every option is below 1024 (LOG_LINE_MAX); syslog adds a stamp and a host name."""

_NUMBER = rb"(0|[1-9][0-9]{0,9})"
_BYTE = rb"(?:0|[1-9][0-9]?|1[0-9]{2}|2[0-4][0-9]|25[0-5])"
_SIZE = rb"(?:0|[1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
_ADDRESS = rb"BYTE\.BYTE\.BYTE\.BYTE"
_DAY = rb"[0-9]{4}-[0-9]{2}-[0-9]{2}"
_ZONE = rb"(?:Z|[+-][0-9]{2}:?[0-9]{2})"
_WORD = rb"[A-Za-z0-9\x80-\xff][A-Za-z0-9.'\x80-\xff-]{0,30}"
_ABBREVIATION = rb"[ ]?WORD(?:[ ](?:[0-9]{1,2}|[\x80-\xff][^\x00-\x20\x7f:]{0,30})|)[ ]{0,2}"
"""A month's name, in any language: some end in spaces or have a second word, a number or not in Latin letters."""
_HOST = rb"[^\x00-\x20\x7f\[\]]{0,254}[^\x00-\x20\x7f\[\]:]"
"""A host name or address; never a program's tag, which ends in a colon or has brackets."""
_DATE = rb"""(?:
    MONTH[ ][ 0-9][0-9][ ][0-9:]{8}(?:\.[0-9]{1,9}|)                          # RFC 3164, journalctl -o short-precise
  | DAYT[0-9:]{8}(?:\.[0-9]{1,9}|)ZONE                                        # RFC 3339
  | WORD[ ]DAY[ ][0-9:]{8}[ ][A-Z0-9+-]{1,8}                                 # journalctl -o short-full
)"""
_CTIME = rb"WORD[ ]WORD[ ][ 0-9][0-9][ ][0-9:]{8}[ ][0-9]{4}"
_PRINTK = rb"\[[ ]{0,16}[0-9]{1,16}\.[0-9]{6}\](?:[ ]?\[[ ]{0,16}[CT][0-9]{1,10}\]|)[ ]"
_FRONT = rb"""(?:
    [0-7],[0-9]{1,20},[0-9]{1,20},[^;\s]{1,128};                              # /dev/kmsg, facility kern only
  | (?:<[0-7]>(?:1[ ]|)|)(?:                                                  # a priority of facility kern (RFC 5424)
        DATE[ ](?:(?:HOST[ ]|)(?:kern\.[a-z]{3,7}[ ]|)kernel:                 # syslog daemons (busybox: kern.debug)
                |HOST[ ]kernel[ ]-[ ]-[ ]-                                    # RFC 5424
                |\[kernel\]                                                   # metalog
               )[ ](?:PRINTK|)
      | CTIME[ ]kern\.[a-z]{3,7}[ ]kernel:[ ](?:PRINTK|)                      # OpenWrt
      | PRINTK(?:HOST[ ]kernel:[ ]|)                                          # dmesg, journalctl -o short-monotonic
    |)
  | \[CTIME\][ ]                                                              # dmesg -T
  | DAYT[0-9:]{8},[0-9]{6}ZONE[ ]                                             # dmesg --time-format iso
)"""
for _word, _meaning in (
    (b"DATE", _DATE),
    (b"CTIME", _CTIME),
    (b"PRINTK", _PRINTK),
    (b"HOST", _HOST),
    (b"MONTH", _ABBREVIATION),
    (b"WORD", _WORD),
    (b"DAY", _DAY),
    (b"ZONE", _ZONE),
):
    _FRONT = _FRONT.replace(_word, _meaning)
_LINK = rb"""
    IN=[^\x00-\x20\x7f]{1,64}[ ]OUT=[ ]                                       # prerouting: a way in and none out
    (?:PHYSIN=[^\x00-\x20\x7f]{1,64}[ ]|)(?:PHYSOUT=[^\x00-\x20\x7f]{1,64}[ ]|)
    (?: MACSRC=[0-9a-f:]{17}[ ]MACDST=[0-9a-f:]{17}[ ](?:VPROTO=[0-9a-f]{4}[ ]VID=[0-9]{1,4}[ ]|)MACPROTO=[0-9a-f]{4}[ ]
      | MAC=[0-9a-f:]{0,191}(?:[ ]TUNNEL=[0-9.]{7,15}->[0-9.]{7,15}|)[ ]
    |)
"""
_IPV4 = rb"""
    SRC=(BYTE)\.(BYTE)\.(BYTE)\.(BYTE)[ ]DST=ADDRESS[ ]LEN=SIZE[ ]TOS=0x[0-9A-F]{2}[ ]
    PREC=0x[0-9A-F]{2}[ ]TTL=BYTE[ ]ID=NUMBER[ ](?:CE[ ]|)(?:DF[ ]|)(?:OPT[ ]\((?:[0-9A-F]{2}){1,40}\)[ ]|)
"""
_IPV6 = rb"""
    SRC=([0-9a-f]{4}(?::[0-9a-f]{4}){7})[ ]DST=[0-9a-f]{4}(?::[0-9a-f]{4}){7}[ ]LEN=SIZE[ ]TC=BYTE[ ]
    HOPLIMIT=BYTE[ ]FLOWLBL=NUMBER[ ](?:OPT[ ]\([ ](?:AH[ ]SPI=0x[0-9a-f]{1,8}[ ]|)\)[ ]){0,8}
"""
_TCP = rb"""
    TCP[ ]SPT=NUMBER[ ]DPT=NUMBER[ ]SEQ=NUMBER[ ]ACK=NUMBER[ ]WINDOW=NUMBER[ ]RES=0x[0-9a-f]{2}[ ]
    (?:AE[ ]|)(?:CWR[ ]|)(?:ECE[ ]|)(SYN[ ]|(?:URG[ ]|)(?:ACK[ ]|)(?:PSH[ ]|)(?:RST[ ]|)(?:SYN[ ]|)(?:FIN[ ]|))
    URGP=SIZE(?:[ ]OPT[ ]\(([0-9A-F]{2,80})\)|)
"""
_UDP = rb"UDP[ ]SPT=NUMBER[ ]DPT=NUMBER[ ]LEN=SIZE"
_END = rb"(?:[ ]UID=[0-9]{1,10}[ ]GID=[0-9]{1,10}|)(?:[ ]MARK=0x[0-9a-f]{1,8}|)[ ]?\n?"
_IP = rb"(?:" + _IPV4 + rb"|" + _IPV6 + rb")PROTO=(?:" + _TCP + rb"|" + _UDP + rb")"
_GRAMMAR = _FRONT + PREFIX.strip().encode() + rb"[ ]" + _LINK + _IP + _END
for _word, _meaning in (b"ADDRESS", _ADDRESS), (b"NUMBER", _NUMBER), (b"BYTE", _BYTE), (b"SIZE", _SIZE):
    _GRAMMAR = _GRAMMAR.replace(_word, _meaning)
_match, _new = re.compile(_GRAMMAR, re.VERBOSE).fullmatch, tuple.__new__
_OCTETS = {b"%d" % number: number for number in range(256)}
_CONTROL = (b"FIN ", FIN), (b"SYN ", SYN), (b"RST ", RST), (b"PSH ", PSH), (b"ACK ", ACK), (b"URG ", URG)
_FLAGS = {b"".join(word for word, bit in reversed(_CONTROL) if bits & bit): bits for bits in range(64)}
"""Control bits by their names as the kernel writes them, from the highest."""


def parse(line: bytes) -> Packet | None:
    """Return the TCP or UDP packet of a line; None for every line that is not exactly one of ours. Never raises.

    line: with or without its newline; a record of /dev/kmsg has one.

    A flood makes a hundred thousand lines a second, so the code is written for speed.
    """
    if len(line) > MAX_LINE or _OURS not in line or not (found := _match(line)):
        return None
    one, two, three, four, ident4, ipv6, ident6, sport, dport, seq, ack, size, control, opt, udp_sport, udp_dport = (
        found.groups()
    )
    if sport:
        source_port, port, window, sequence, acknowledgment = int(sport), int(dport), int(size), int(seq), int(ack)
        protocol, flags = TCP, _FLAGS[control]
    else:
        source_port, port, window, sequence, acknowledgment = int(udp_sport), int(udp_dport), 0, 0, 0
        protocol, flags = UDP, 0
    if source_port | port | window > 0xFFFF or sequence | acknowledgment > 0xFFFFFFFF:
        return None
    if one:
        ident, limit = int(ident4), 0xFFFF
        source = bytes((_OCTETS[one], _OCTETS[two], _OCTETS[three], _OCTETS[four]))
    else:
        ident, limit = int(ident6), 0xFFFFF
        source = unhexlify(ipv6.replace(b":", b""))
    if ident > limit or (opt and len(opt) % 2):
        return None
    options = unhexlify(opt) if opt else b""
    # The same as Packet(...), in half the time.
    return _new(
        Packet, (source, source_port, port, ident, sequence, acknowledgment, window, options, b"", protocol, flags)
    )


PORTION = 100
"""Lines that are parsed before their first packet is yielded."""
FRONT = 60
"""The most characters of a front that hearing() returns."""
_OURS = PREFIX.encode() + b"IN="
_SAMPLE = (
    _OURS + b"lo OUT= SRC=192.0.2.7 DST=192.0.2.1 LEN=60 TOS=0x00 PREC=0x00 TTL=64 ID=1 DF PROTO=TCP "
    b"SPT=40000 DPT=4242 SEQ=1 ACK=0 WINDOW=64240 RES=0x00 SYN URGP=0 "
)


class Lines:
    """Parses lines, and notices lines of ours whose front the grammar does not have."""

    def __init__(self) -> None:
        self._heard, self._front = False, ""

    def packets(self, lines: list[bytes]) -> Iterator[Packet | None]:
        """Yield the result of parse() for each line."""
        for at in range(0, len(lines), PORTION):
            portion = lines[at : at + PORTION]
            found = list(map(parse, portion))
            if any(found):
                self._heard = True
            else:
                self._look(portion)
            yield from found

    def _look(self, lines: list[bytes]) -> None:
        """Look for our rule's prefix. A line that fails only in its packet counts as heard; else keep its front."""
        if _OURS not in b"\n".join(lines):  # the usual case, and cheaper than a search in each
            return
        for line in lines:
            if (at := line.find(_OURS)) < 0:
                continue
            if parse(line[:at] + _SAMPLE):
                self._heard = True
            else:
                text = line[:at].decode("utf-8", "replace")[:FRONT]
                self._front = "".join(one if one.isprintable() else "?" for one in text)

    def hearing(self) -> tuple[bool, str]:
        """Return True if a line was understood since the last call, and the front of one that was not."""
        found, self._heard, self._front = (self._heard, self._front), False, ""
        return found
