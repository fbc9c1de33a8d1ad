"""Benchmarks: what rawws and its peers cost, measured side by side in one run (see README.md)."""
