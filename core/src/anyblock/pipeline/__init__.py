"""The pipeline: the stages one after the other, from a checkpoint to a child."""
