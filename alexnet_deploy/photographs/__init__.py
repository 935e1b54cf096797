"""From a path to crops in batches: found, decoded, resized, in order."""
