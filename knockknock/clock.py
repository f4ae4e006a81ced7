"""The time of day, for profiles whose counter is the clock (PROTOCOL.md step 1); nothing else may use it."""

import time


def seconds() -> int:
    """Whole seconds since 1970, UTC, as the machine's clock has them."""
    return int(time.time())
