"""Is an artefact what it says? Runs it beside the reference and compares."""
