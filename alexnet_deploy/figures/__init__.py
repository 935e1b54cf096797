"""What people look at: Figure 4 of the paper, left and right, as PNG and HTML."""
