"""lm-evaluation-harness on teachers and children: the model `anyblock`, and tasks from local files. Needs `anyblock[lm-eval]`."""
