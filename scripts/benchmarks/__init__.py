"""Benchmarks that scripts/bench runs."""
