"""lm-evaluation-harness on teachers and children of AnyBlock: the model `anyblock`, and tasks from local files."""
