"""Files that appear whole or not at all, and paths as text."""
