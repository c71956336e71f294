"""The pipeline: stages in a run folder, from a checkpoint to a child."""
