"""From paths to batches of crops: find, decode and resize photographs, in order."""
