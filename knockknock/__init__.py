"""Port knocking by one encrypted SYN."""

__version__ = "1.0.0"
