"""Inference on photographs: classes, vectors, accuracy, failures."""
