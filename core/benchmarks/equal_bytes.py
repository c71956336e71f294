"""How good children of the same file size are: one type for all, pruning alone, both after one another, and one search over both.

    python core/benchmarks/equal_bytes.py MODEL --data TEXT --output FOLDER [--row NAME] [KEY=VALUE ...]

It needs anyblock-gguf with llama.cpp (`pip install 'anyblock-gguf[llama-cpp]'`). Every row is a child of `compress` on the same
text and an export to GGUF, whose bytes count. All rows have one run folder, so that stages with the same inputs run once. Rows:

    uniform-TYPE        the teacher with every half in one type
    prune@SHARE         shapes alone, in 16 bits, under a budget of SHARE of the teacher's bytes in 16 bits
    prune-TYPE@SHARE    shapes, every half in one type
    joint@SHARE         shapes and types in one search

`--row` computes one of them; without it those that are missing are computed. Finished rows are kept in FOLDER, and a run that was
stopped continues. At the end the table of all finished rows is printed. KEY=VALUE are keys of the runs' configuration.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any, Final

from anyblock import compress, convert_model, export_child
from anyblock.config import load_config
from anyblock.rich_progress import terminal_progress

UNPRUNED: Final = (
    *("pruning.ffn.sizes=[]", "pruning.ffn.no_op=false", "pruning.attention.no_op=false"),
    *("scoring.probes=1", "scoring.exact_sample=2"),
)
"""The teacher's shapes alone; with one type there is nothing to choose, so scores decide nothing."""


def rows(types: list[str], pruned: list[str], shares: list[str], embeddings: str) -> dict[str, list[str]]:
    """Return `{name of a row: overrides of its run}`.

    Args:
        types: those of the joint search, and of the uniform rows.
        pruned: those that pruning alone is combined with.
        shares: of the teacher's bytes in 16 bits.
        embeddings: the type of embeddings and head, but for pruning in 16 bits and for the joint search, which chooses it.
    """

    def stored(*names: str, outside: str = embeddings) -> list[str]:
        return [f"storage.types=[{','.join(names)}]", f"storage.embeddings={outside}"]

    searched = {
        "prune": stored("f16", outside="f16"),
        **{f"prune-{name}": stored(name) for name in pruned},
        "joint": stored(*types, outside="null"),
    }
    return {f"uniform-{name}": [*stored(name), *UNPRUNED, "search.budget=[bytes=1x]"] for name in types} | {
        f"{kind}@{share}": [*keys, f"search.budget=[bytes={share}x]"]
        for kind, keys in searched.items()
        for share in shares
    }


def compute(name: str, overrides: list[str], model: Path, given: argparse.Namespace) -> dict[str, Any]:
    """Return a row's figures; where no child is that small, the reason."""
    from anyblock.errors import BudgetError

    child = given.output / "children" / name
    begin = time.process_time()
    own = [f"data.path={given.data}", f"run_dir={given.output / 'run'}", *given.keys, *overrides]
    config = load_config(None, own, {"model": str(model), "output": str(child)})
    try:
        result = compress(config, progress=terminal_progress())
    except BudgetError as error:
        return {"row": name, "impossible": error.what}
    shutil.rmtree(given.output / "file", ignore_errors=True)
    (file,) = export_child(result.child.path, given.output / "file", "gguf").iterdir()
    found, size = result.evaluation, file.stat().st_size
    assert found is not None
    shutil.rmtree(given.output / "file")
    return {
        "row": name,
        "bytes": size,
        "counted": result.solution.costs["bytes"],
        "share": size / result.summary.teacher_costs["bytes"],
        "kl": found.kl_per_token,
        "perplexity": found.child.perplexity,
        "teacher": found.teacher.perplexity if found.teacher else None,
        "top1": found.top1,
        "seconds": time.process_time() - begin,
    }


def table(found: list[dict[str, Any]]) -> str:
    """Return the rows as Markdown, the largest file first."""
    lines = ["| row | file bytes | of the teacher's | KL | perplexity | top-1 |", "|---|---|---|---|---|---|"]
    lines += [
        f"| {row['row']} | {row['bytes']:,} | {row['share']:.1%} | {row['kl']:.4f} | {row['perplexity']:.2f} | {row['top1']:.1%} |"
        for row in sorted((row for row in found if "kl" in row), key=lambda row: (-row["bytes"], row["row"]))
    ]
    lines += [f"| {row['row']} | not that small | | | | |" for row in found if "impossible" in row]
    return "\n".join(lines)


def main() -> None:
    """Compute what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("keys", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--row")
    parser.add_argument("--types", default="q8_0,q6_k,q5_k,q4_k,q3_k,q2_k")
    parser.add_argument("--pruned-types", default="q8_0,q4_k")
    parser.add_argument("--shares", default="0.6,0.4,0.3,0.25")
    parser.add_argument("--embeddings", default="q8_0")
    given = parser.parse_intermixed_args()  # KEY=VALUE stand after options
    lists = [text.split(",") for text in (given.types, given.pruned_types, given.shares)]
    wanted = rows(*lists, given.embeddings)
    if given.row and given.row not in wanted:
        sys.exit(f"there is no row {given.row!r}; there are {', '.join(wanted)}")
    given.output.mkdir(parents=True, exist_ok=True)
    model = given.output / "teacher"
    if not model.exists():
        convert_model(given.model, model)
    for name in [given.row] if given.row else wanted:
        kept = given.output / f"{name}.json"
        if not kept.exists():
            row = compute(name, wanted[name], model, given)
            kept.with_suffix(".part").write_text(json.dumps(row, indent=1))
            kept.with_suffix(".part").rename(kept)
    print(
        table(
            [
                json.loads((given.output / f"{name}.json").read_text())
                for name in wanted
                if (given.output / f"{name}.json").exists()
            ]
        )
    )


if __name__ == "__main__":
    main()
