"""Runners: one module per library, behind one protocol (`base`)."""
