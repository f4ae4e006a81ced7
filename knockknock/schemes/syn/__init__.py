"""The encrypted SYN: its profile, and how it is sealed and recognised."""
