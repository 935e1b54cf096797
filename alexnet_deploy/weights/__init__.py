"""The public AlexNets by name: found on this disk or fetched, verified, and kept as checkpoints."""
