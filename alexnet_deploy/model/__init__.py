"""The network: its spec, its weights, its class names, and the NumPy reference."""
