"""Building heterogeneous models, no-op modules, loading, and layer-wise execution."""
