"""What both command lines share: errors and signals, results and progress, paths."""
