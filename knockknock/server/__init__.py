"""The daemon: turns received packets into records for the root helper."""
