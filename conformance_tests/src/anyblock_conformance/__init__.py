"""The shared conformance suite for AnyBlock family adapters."""
