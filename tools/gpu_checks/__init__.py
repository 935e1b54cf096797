"""The checks of `make gpu-check` and their runner; see tools/gpu_check.py."""
