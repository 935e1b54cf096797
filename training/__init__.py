"""The paper's two-GPU trainer; see README.md beside this file."""
