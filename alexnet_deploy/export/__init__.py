"""From a checkpoint to a verified artefact; from `--model` to something that runs."""
