"""`python -m anyblock.execution FOLDER ID [ID ...]`: compute tasks of a run in this process."""

from __future__ import annotations

import sys
from pathlib import Path

from anyblock.contract.services import services
from anyblock.errors import AnyBlockError, InputError


def main() -> int:
    """Return 2 where the input cannot be used, and 1 where a computation failed."""
    folder, *ids = sys.argv[1:]
    try:
        for task in ids:
            services().run_task(Path(folder), task)
    except AnyBlockError as error:
        print(error, file=sys.stderr)
        return 2 if isinstance(error, InputError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
