"""Profiles and counters on disk or in a database, for both sides."""
