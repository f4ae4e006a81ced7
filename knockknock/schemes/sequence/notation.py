"""The notation of port sequences and TCP flags; also accepts knockd's (`2001:udp`). Pure."""

from ...core.packet import ACK, FIN, PSH, RST, SYN, URG
from ...core.profile import KnockPort
from ...core.request import PROTOCOL_NAMES, port_number, protocol_number
from ...errors import ConfigError

MAX_STEPS = 32
"""knockd's limit; xt_pknock's is 15."""

Steps = tuple[KnockPort, ...]
_FLAGS = {"fin": FIN, "syn": SYN, "rst": RST, "psh": PSH, "ack": ACK, "urg": URG}


def parse_steps(text: str) -> Steps:
    """Return the sequence in text such as `tcp/2002, udp/2001` or `2002, 2001:udp`. Raises ConfigError."""
    found = []
    for item in text.split(","):
        before, slash, behind = item.strip().partition("/")
        if not slash:
            behind, _, before = item.strip().partition(":")
        found.append((protocol_number(before.strip() or "tcp"), port_number(behind.strip())))
    if not 2 <= len(found) <= MAX_STEPS:
        raise ConfigError(f"a sequence has 2 to {MAX_STEPS} ports, not {len(found)}")
    return tuple(found)


def parse_flags(text: str) -> tuple[int, int]:
    """Return mask and value of control bits from words such as `syn, !ack`. Raises ConfigError."""
    mask = value = 0
    for word in text.lower().split(","):
        bit = _FLAGS.get(word.strip().removeprefix("!"))
        if bit is None or mask & bit:
            raise ConfigError(
                f"{text!r} is not a list of TCP flags; write syn, fin, !ack with commas between, each once"
            )
        mask |= bit
        value |= 0 if word.strip().startswith("!") else bit
    return mask, value


def show_steps(steps: Steps) -> str:
    """The text that parse_steps() reads back."""
    return ", ".join(f"{PROTOCOL_NAMES[protocol]}/{port}" for protocol, port in steps)


def show_flags(mask: int, value: int) -> str:
    """The text that parse_flags() reads back."""
    return ", ".join(("" if value & bit else "!") + word for word, bit in _FLAGS.items() if mask & bit)
