"""What an ipset holds, read through pyroute2."""

import contextlib
import ipaddress
from collections.abc import Iterator
from typing import Any

from pyroute2.netlink.exceptions import IPSetError

from ..errors import FirewallError
from ..grant import MOST_SECONDS, Grant, Order


@contextlib.contextmanager
def errors() -> Iterator[None]:
    """What the kernel refuses is a FirewallError."""
    try:
        yield
    except (IPSetError, OSError) as error:
        raise FirewallError(f"ipset refused: {error}") from None


def doors(ipset: Any, name: str, order: Order) -> list[Grant]:
    """The elements of a set as doors of one kind, each with the seconds that are left. Raises FirewallError."""
    with errors():
        return [
            _door(order, entry)
            for part in ipset.list(name)
            for entries in part.get_attrs("IPSET_ATTR_ADT")
            for entry in entries.get_attrs("IPSET_ATTR_DATA")
        ]


def _door(order: Order, entry: Any) -> Grant:
    ((_, host),) = entry.get_attr("IPSET_ATTR_IP_FROM")["attrs"]
    protocol, port = entry.get_attr("IPSET_ATTR_PROTO"), entry.get_attr("IPSET_ATTR_PORT_FROM")
    left = min(entry.get_attr("IPSET_ATTR_TIMEOUT") or 0, MOST_SECONDS)  # 0: for ever
    return Grant(order, ipaddress.ip_address(host).packed, protocol, port, left)
