"""Figures: both halves of the paper's figure 4, as PNG and HTML."""
