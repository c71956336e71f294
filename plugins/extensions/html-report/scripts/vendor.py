"""Fetch the JavaScript of the page and of its tests from the npm registry, in fixed versions, checked and unchanged.

`python scripts/vendor.py` writes them again; `--check` says whether what is there is what the registry has.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import io
import json
import tarfile
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
PAGE, TESTS = HERE / "src" / "anyblock_html_report" / "vendor", HERE / "tests" / "vendor"
PACKAGES = (
    ("d3", "7.9.2", "dist/d3.min.js", PAGE / "d3.min.js"),
    ("@observablehq/plot", "0.6.17", "dist/plot.umd.min.js", PAGE / "plot.umd.min.js"),
    ("axe-core", "4.14.1", "axe.min.js", TESTS / "axe.min.js"),
)
"""Package, version, the file in it, and where it goes; the package's licence goes next to it."""


def fetch(package: str, version: str) -> bytes:
    """Return the package's archive, whose hash is that of the registry."""
    with urllib.request.urlopen(f"https://registry.npmjs.org/{package}/{version}", timeout=60) as answer:
        about = json.load(answer)["dist"]
    with urllib.request.urlopen(about["tarball"], timeout=60) as answer:
        archive: bytes = answer.read()
    method, _, expected = about["integrity"].partition("-")
    if base64.b64encode(hashlib.new(method, archive).digest()).decode() != expected:
        raise SystemExit(f"{package} {version}: the archive's {method} is not that of the registry")
    return archive


def main() -> None:
    """Fetch everything, or compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare, and write nothing")
    check = parser.parse_args().check
    for package, version, name, target in PACKAGES:
        with tarfile.open(fileobj=io.BytesIO(fetch(package, version))) as archive:
            for member, path in ((name, target), ("LICENSE", target.with_suffix(".LICENSE"))):
                file = archive.extractfile(f"package/{member}")
                assert file is not None, member
                content = file.read()
                if not check:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(content)
                elif path.read_bytes() != content:
                    raise SystemExit(f"{path} is not the {member} of {package} {version}")
        print(f"{package} {version}: {target.relative_to(HERE)}, {target.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
