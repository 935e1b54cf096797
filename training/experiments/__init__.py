"""Experiments: what the paper remarks on and did not do, each a script to be read beside it."""
