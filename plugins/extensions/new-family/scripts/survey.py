"""How far inferred adapters reach: every causal-LM model type of the installed transformers, each in a process of its own.

`python scripts/survey.py RESULTS.jsonl [--conformance] [--only TYPE ...] [--write-docs]`; started again it continues where it
stopped. Without `--conformance` what is recorded is what introspection itself tried and saw to hold.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time
from collections.abc import Callable
from itertools import takewhile
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- survey: begin -->\n", "<!-- survey: end -->\n"


def examine(model_type: str, conformance: bool, queue: Any) -> None:
    """Infer one model type, write its adapter and, if asked to, run the suite on it; put a plain result into the queue."""
    import torch
    from anyblock_new_family.introspection import infer_family, inferred_model_family
    from anyblock_new_family.source import descriptor_source

    torch.set_num_threads(1)
    found: dict[str, Any] = {"model_type": model_type, "stage": "infer"}
    begin = time.perf_counter()
    try:
        inferred = infer_family(model_type)
        family = inferred_model_family(inferred)
        found["capabilities"] = [name for name, capability in family.capabilities().items() if capability]
        found["not_implemented"] = dict(inferred.attributes["not_implemented"])
        found["lines"] = len(descriptor_source(inferred).splitlines())
        found["stage"] = "inferred"
        if conformance:
            from anyblock_new_family.verify import verified

            outcome = verified(inferred)
            report, family = outcome.report, inferred_model_family(outcome.inferred)
            found["demoted"] = {
                name: reason
                for name, reason in outcome.inferred.attributes["not_implemented"].items()
                if name in found["capabilities"]
            }
            found["capabilities"] = [name for name, capability in family.capabilities().items() if capability]
            found["not_implemented"] = dict(outcome.inferred.attributes["not_implemented"])
            found["levels"] = {level["level"]: level["state"] for level in report["levels"]}
            found["first"] = next((f"{r['id']}: {r['message'][:160]}" for r in outcome.failures), "")
            found["false"] = [r["name"] for r in report["capabilities"] if r["verdict"] == "false claim"]
            found["stage"] = "conformance"
    except Exception as error:  # noqa: BLE001 - a survey records whatever happens
        found["error"] = " ".join(f"{type(error).__name__}: {error}".split())[:200]
    found["seconds"] = round(time.perf_counter() - begin, 1)
    queue.put(found)


def run(model_types: list[str], results: Path, conformance: bool, limit: float) -> None:
    """Examine what is not in the results yet."""
    done = {json.loads(line)["model_type"] for line in results.read_text().splitlines()} if results.exists() else set()
    import anyblock_conformance  # noqa: F401 - imported once, before the processes are forked
    import transformers.conversion_mapping
    import transformers.modeling_utils  # noqa: F401

    context = multiprocessing.get_context("fork")
    for model_type in model_types:
        if model_type in done:
            continue
        queue = context.Queue()
        process = context.Process(target=examine, args=(model_type, conformance, queue), daemon=True)
        process.start()
        try:
            found = queue.get(timeout=limit)
        except Exception:  # noqa: BLE001 - the process hangs or was killed
            found = {
                "model_type": model_type,
                "stage": "infer",
                "error": f"no result within {limit} s",
                "seconds": limit,
            }
        process.terminate()
        process.join()
        with results.open("a") as file:
            file.write(json.dumps(found) + "\n")
        print(
            found["model_type"],
            found["stage"],
            found["seconds"],
            found.get("error") or found.get("not_implemented"),
            flush=True,
        )


def table(rows: list[dict[str, Any]]) -> str:
    """Return the survey as Markdown."""
    import torch
    import transformers
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    built = [row for row in rows if buildable(row)]
    suite = [row for row in built if "levels" in row]
    lines = [
        f"transformers {transformers.__version__}, torch {torch.__version__}; {len(rows)} model types examined of"
        f" {len(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)} with a causal language model; {len(built)} can be built and run tiny.",
        "",
        f"- the conformance suite was run on {len(suite)}; adapters with a false claim:"
        f" {sum(bool(row['false']) for row in suite)}",
        f"- `build` with the no-op of every half that its layers have: {share(built, reaches_build)}; among those that the suite"
        f" was run on {share(suite, reaches_build)}",
        f"- `build` with both no-ops, which layers of a Mamba alone cannot have: {share(built, loses_both)}; among those that"
        f" the suite was run on {share(suite, loses_both)}",
        f"- ffn or expert pruning as well: {share(built, prunes)}; among those that the suite was run on {share(suite, prunes)}",
        f"- and key-value heads where an attribute sets their number: {share(built, prunes_heads)}; among those that the suite"
        f" was run on {share(suite, prunes_heads)}",
        "- where the suite was not run, a figure rests on introspection's own trials; where nothing was inferred, it counts as"
        " failed",
        "",
        "| model_type | level reached | capabilities | lines | seconds | first failing check, what is missing, or why not |",
        "|---|---|---|---|---|---|",
    ]
    for row in sorted(rows, key=lambda row: row["model_type"]):
        given = row.get("not_implemented", {})
        missing = "; ".join(f"{name}: {why}" for name, why in given.items() if name != "hidden_size")
        why = row.get("first") or row.get("error") or next(iter(row.get("demoted", {}).values()), "") or missing
        cells = [
            row["model_type"],
            level(row),
            ", ".join(row.get("capabilities", ())),
            str(row.get("lines", "")),
            str(row["seconds"]),
            " ".join(why.split()).replace("|", "\\|").replace("<", "&lt;")[:220],
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def buildable(row: dict[str, Any]) -> bool:
    """Return whether a tiny model of this type could be built and run."""
    return "no tiny" not in row.get("error", "") and "() fails" not in row.get("error", "")


def reaches_build(row: dict[str, Any]) -> bool:
    """Return whether heterogeneous models can be built, and every half be removed that the layers have."""
    return (
        "build" in row.get("capabilities", ()) and not {"attention_no_op", "ffn_no_op"} & row["not_implemented"].keys()
    )


def loses_both(row: dict[str, Any]) -> bool:
    """Return whether heterogeneous models can be built, and either half be removed."""
    return {"build", "attention_no_op", "ffn_no_op"} <= set(row.get("capabilities", ()))


def prunes(row: dict[str, Any]) -> bool:
    """Return whether channels of the ffn, or experts, can go as well."""
    return reaches_build(row) and bool(
        {"ffn_intermediate", "experts_removal", "expert_intermediate"} & set(row["capabilities"])
    )


def prunes_heads(row: dict[str, Any]) -> bool:
    """Return whether the same holds, and key-value heads can go as well where there is an attribute for their number."""
    return prunes(row) and "kv_heads" not in row["not_implemented"]


def share(rows: list[dict[str, Any]], holds: Callable[[dict[str, Any]], bool]) -> str:
    """Return how many of some rows something holds for, with the percentage."""
    found = sum(map(holds, rows))
    return f"{found} of {len(rows)} ({found / max(1, len(rows)):.1%})"


def level(row: dict[str, Any]) -> str:
    """Return the last level of the suite up to which all are passed."""
    if "error" in row:
        return "none"
    passed = list(takewhile(lambda item: item[1] == "passed", row.get("levels", {}).items()))
    return (passed[-1][0] if passed else "none") if "levels" in row else "suite not run"


def main() -> None:
    """Read the arguments and run."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path)
    parser.add_argument("--conformance", action="store_true")
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--limit", type=float, default=180.0, help="seconds a model type may take")
    parser.add_argument("--write-docs", action="store_true")
    given = parser.parse_args()
    if not given.write_docs:
        run(given.only or list(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES), given.results, given.conformance, given.limit)
        return
    lines = given.results.read_text().splitlines()
    found = {row["model_type"]: row for row in map(json.loads, lines)}  # a later run of the same type counts
    rows = [row for name, row in found.items() if name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES]
    page = DOCS.read_text()
    head, _, rest = page.partition(BEGIN)
    DOCS.write_text(head + BEGIN + table(rows) + END + rest.partition(END)[2])


if __name__ == "__main__":
    main()
