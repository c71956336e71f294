"""What every process that runs tests needs before anything is imported."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile

# transformers copies the code of exported checkpoints to one folder per user, where parallel workers would overwrite each
# other's; and it imports from where that folder was first.
_MODULES = tempfile.mkdtemp(prefix="anyblock-test-modules-")
os.environ["HF_MODULES_CACHE"] = _MODULES
atexit.register(shutil.rmtree, _MODULES, ignore_errors=True)

pytest_plugins = ["anyblock_tests.fixtures"]
