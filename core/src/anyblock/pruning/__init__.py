"""Pruning mixins: they turn scores and a target `BlockConfig` into a subblock's weights."""
