"""Deliberately wrong adapters, each named by its fault and made for the one check that has to notice it."""

from mutants.registry import MUTANTS, Mutant

__all__ = ["MUTANTS", "Mutant"]
