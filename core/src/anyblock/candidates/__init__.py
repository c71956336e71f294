"""Alternatives for one subblock of one layer, as views of the sorted teacher."""
