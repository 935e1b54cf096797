"""What runs a model: one module per library, behind one protocol (`base`)."""
