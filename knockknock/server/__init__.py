"""The daemon: from a packet to a record for the root helper."""
