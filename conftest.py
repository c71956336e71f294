"""What every process that runs tests needs before anything is imported."""

from __future__ import annotations

import atexit
import gc
import os
import shutil
import tempfile
from collections import Counter
from fnmatch import fnmatch
from typing import Final

import pytest

# transformers copies the code of exported checkpoints to one folder per user, where parallel workers would overwrite each
# other's; and it imports from where that folder was first.
_MODULES = tempfile.mkdtemp(prefix="anyblock-test-modules-")
os.environ["HF_MODULES_CACHE"] = _MODULES
atexit.register(shutil.rmtree, _MODULES, ignore_errors=True)

# Nothing that tests write has to outlive a power cut, and waiting for the disk took a few hundredths of their time.
# Processes that tests start, the fault harnesses among them, wait for it as ever.
os.fsync = lambda descriptor: None

pytest_plugins = ["anyblock_tests.fixtures", "anyblock_tests.hub_processes"]

_NUMERICAL: Final = (
    *(f"core/tests/{room}/*" for room in ("evaluation", "importance", "modeling", "pruning", "realize", "scoring")),
    *(
        f"core/tests/pipeline/test_{name}.py"
        for name in ("distillation", "golden", "hidden_size", "init_modes", "linear")
    ),
    *(f"core/tests/pipeline/test_{name}.py" for name in ("numbers", "one_sweep", "reference_defects")),
    # Of the families one of each kind: dense, with experts, with Mamba, with latent attention, with sinks.
    *(f"plugins/families/{name}/*" for name in ("llama", "mixtral", "nemotron-h", "deepseek-v3", "gpt-oss")),
)
"""Where computed numbers are compared. Other tests count, copy, refuse or stop, which no processor does differently."""
_CASES: Final = 2
"""So many cases of a parametrised test are enough to see it compute otherwise."""
_CHECKS: Final = ("build.", "prune.")
"""Which checks of the conformance suite compute; each is a claim of its own."""


@pytest.hookimpl(tryfirst=True)  # before `-m` selects
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the tests that `nox -s numerics` runs under several instruction sets."""
    seen: Counter[str] = Counter()
    numerical = {path: _is_numerical(path.relative_to(config.rootpath).as_posix()) for path in {i.path for i in items}}
    for item in items:
        test, _, case = item.nodeid.partition("[")
        if numerical[item.path]:
            seen[test] += 1
            if case.startswith(_CHECKS) if test.endswith("::test_conformance") else seen[test] <= _CASES:
                item.add_marker(pytest.mark.numerical)


def _is_numerical(file: str) -> bool:
    return any(fnmatch(file, pattern) for pattern in _NUMERICAL)


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Take everything that was imported and collected out of the garbage collector's sight.

    Those are a million objects, which live as long as the process. Walking them at each collection took a third of the time
    of tests that build models.
    """
    _freeze()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Do the same with what the tests of a file have imported."""
    if nextitem is not None and nextitem.path != item.path:
        _freeze()


def _freeze() -> None:
    gc.collect()  # what is garbage now is not kept, and its finalizers are heard
    gc.freeze()
