"""Fills the options of knockknock with a host's settings in ~/.knockknock/config."""

import socket

from ..client import host_config, knock
from ..errors import ConfigError
from ..profiles import files
from .knock_options import Options

_FAMILIES = {"any": socket.AF_UNSPEC, "inet": socket.AF_INET, "inet6": socket.AF_INET6}


def configure(options: Options, path: str) -> host_config.Host:
    """Fill in the options that are not set, and return the host's settings. Raises ConfigError."""
    try:
        text = files.read(path)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    knock.check_own(path)
    found = host_config.parse(text, path, options.host)
    options.ports = options.ports or (None if options.port else found.ports)
    options.timeout = options.timeout or found.timeout
    options.source = options.source or found.source
    if options.family is None and found.address_family:
        options.family = _FAMILIES[found.address_family]
    return found
