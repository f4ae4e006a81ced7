"""Derives the root helper's policy from the configuration and all profiles, in a short-lived process.

So a process that keeps root never loads a parser or a key.
"""

import contextlib
import os
from collections.abc import Iterator

from ..core.packet import TCP
from ..core.profile import Profile
from ..errors import KnockError, ProfileError
from ..profiles import files
from ..profiles.text import check_name, parse_config
from ..root import setup
from ..root.policy import Policy, Scan
from . import file_ownership
from .config import Config, load_config


def policy(config_path: str) -> Policy:
    """Return the union of what the profiles may open; one with faults adds none. Raises ConfigError, ProfileError.

    Also raises ProfileError if others than root could change them, or root may not read one.
    """
    config = load_config(config_path)
    file_ownership.check(config_path, config)
    ports: set[tuple[int, int]] = set()
    any_flags: set[int] = set()
    doors: set[tuple[int, int, int]] = set()
    timed: set[tuple[int, int, int, int]] = set()
    for draft in _drafts(config.profiles):
        ports.update(draft.knock_ports)
        any_flags.update(port for protocol, port in draft.knock_ports if draft.any_flags and protocol == TCP)
        runs = [(one.protocol, one.first, one.last) for one in draft.ports]
        if draft.delay is None:
            doors.update(runs)
        else:
            timed.update((*run, draft.delay) for run in runs)
    return Policy(
        tuple(sorted(ports)),
        tuple(sorted(doors)),
        config.delay,
        os.path.realpath(config.state),
        config.ct_label,
        config.protect,
        config.protect_reject,
        config.protect_allow,
        doors_per_minute=config.doors_per_minute,
        nflog_group=config.nflog_group if config.source == "nflog" else 0,
        any_flags=tuple(sorted(any_flags)),
        expected_size=config.expected_size,
        scan=_scan(config) if config.scan_guard else None,
        timed=tuple(sorted(timed)),
        locked_in=config.sandbox != "off",
    )


def _scan(config: Config) -> Scan:
    return Scan(
        config.scan_ports,
        config.scan_seconds,
        config.scan_block,
        config.scan_ipv6_prefix,
        config.scan_allow,
        config.scan_drops == "all",
        tuple((first, last) for _, first, last in config.scan_public),
        config.scan_count == "daemon",
    )


def _drafts(place: str) -> Iterator[Profile]:
    """Yield the profiles, without names and keys; from a database each different one once. Raises ProfileError."""
    if files.is_database(place):
        from ..profiles import database

        for text in database.configs(place):
            with contextlib.suppress(KnockError):  # the daemon reports it
                yield parse_config(text, "config")
        return
    for name in files.names(place):
        path = f"{place}/{name}/config"
        try:
            check_name(name)
            yield files.load_draft(f"{place}/{name}")
        except PermissionError:
            raise ProfileError(f"{path} is not root's own, who may therefore not read it: chown root {path}") from None
        except (KnockError, OSError):
            continue  # the daemon reports it


def main() -> None:
    """Run a set-up that reads the configuration."""
    setup.main(policy)
