"""Verify artefacts: run them beside the reference and compare."""
