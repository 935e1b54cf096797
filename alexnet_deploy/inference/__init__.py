"""Results from photographs: classes, vectors, accuracy, and who failed."""
