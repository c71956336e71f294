from anyblock_conformance.pytest import conformance_tests

test_conformance = conformance_tests("gemma4_unified")
