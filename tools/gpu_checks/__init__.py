"""The checks of `make gpu-check`, pytest's tests, and what they share; see tools/gpu_check.py."""
