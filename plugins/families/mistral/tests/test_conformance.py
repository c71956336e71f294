from anyblock_conformance.pytest import conformance_tests

test_mistral = conformance_tests("mistral")
test_ministral = conformance_tests("ministral")
