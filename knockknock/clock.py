"""The time of day, which nothing here goes by but the counters of profiles that say so (PROTOCOL.md step 1)."""

import time


def seconds() -> int:
    """Whole seconds since 1970, UTC, as the machine's clock has them."""
    return int(time.time())
