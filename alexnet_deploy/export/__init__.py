"""From a checkpoint to a verified artefact; from a model's path to something that runs."""
