"""Damaged and forged files, and where they are read; see tools/fuzz.py."""
