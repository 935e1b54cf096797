"""Atomic file output, checked input, JSON records, and paths as text."""
