"""Fills the settings of ~/.knockknock/config for a host into the options of knockknock."""

import argparse
import socket

from .. import client, hosts, store
from ..errors import ConfigError

_FAMILIES = {"any": socket.AF_UNSPEC, "inet": socket.AF_INET, "inet6": socket.AF_INET6}


def configure(options: argparse.Namespace, path: str) -> hosts.Host:
    """Fill in from the configuration what the options leave open; what it says of the host. Raises ConfigError."""
    try:
        text = store.read(path)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    client.check_own(path)
    found = hosts.parse(text, path, options.host)
    options.ports = options.ports or (None if options.port else found.ports)
    options.timeout = options.timeout or found.timeout
    options.source = options.source or found.source
    if options.family is None and found.address_family:
        options.family = _FAMILIES[found.address_family]
    return found
