"""From a Hugging Face checkpoint to a subblock checkpoint: a plan that is checked first, then copied bytes."""
