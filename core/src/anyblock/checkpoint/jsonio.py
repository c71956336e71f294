"""Writing JSON."""

from __future__ import annotations

import json
from typing import Any


def json_bytes(data: Any) -> bytes:
    """Return data as indented JSON in ASCII, with a newline at the end.

    Raises:
        TypeError, ValueError: the data is not JSON.
    """
    return (json.dumps(data, indent=2) + "\n").encode()
