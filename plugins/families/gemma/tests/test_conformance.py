from anyblock_conformance.pytest import conformance_tests

test_gemma2 = conformance_tests("gemma2")
test_gemma3_text = conformance_tests("gemma3_text")
test_gemma3 = conformance_tests("gemma3")
