"""The checks of `make gpu-check`, and what runs them; see tools/gpu_check.py."""
