"""Finds the TCP options of a SYN that carry a knock; trusts no length in them. Pure."""


def timestamp(options: bytes) -> int | None:
    """The TSval of the timestamps option (RFC 7323); None without one, or after an invalid length."""
    at, end = 0, len(options)
    while at < end and options[at]:
        if options[at] == 1:
            at += 1
            continue
        length = options[at + 1] if at + 1 < end else 0
        if length < 2:
            return None
        if options[at] == 8 and length == 10 and at + 10 <= end:
            return int.from_bytes(options[at + 2 : at + 6], "big")
        at += length
    return None
