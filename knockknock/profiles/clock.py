"""Reads the time of day, for clock counters (PROTOCOL.md step 1), one-time passwords and expiry."""

import time


def seconds() -> int:
    """Return the whole seconds since 1970, UTC, by the machine's clock."""
    return int(time.time())
