"""What a network is: its spec, its weights, its names, and the oracle in NumPy."""
