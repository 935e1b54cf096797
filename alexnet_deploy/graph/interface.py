"""What a program that runs a graph knows of it without reading it, and so without `onnx`."""

INPUT = "images"

GRAPH_VERSION = 2
"""Incremented when the same checkpoint would give another graph; a file of another is refused."""
