"""`python -m anyblock_lm_eval ...` is `lm_eval ...` with the model `anyblock`.

lm_eval 0.4 looks for models only in its own registry, so a model of another distribution has to be imported first.
"""

from __future__ import annotations

from lm_eval.__main__ import cli_evaluate

import anyblock_lm_eval.model  # noqa: F401 - registers the model

if __name__ == "__main__":
    cli_evaluate()
