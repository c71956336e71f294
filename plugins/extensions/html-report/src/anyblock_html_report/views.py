"""What each view of the page shows, as data that a script can read too."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from anyblock.contract.blocks import HALVES, BlockConfig, group_name

from anyblock_html_report.front import Options, Point, options, predicted_front, quantized, uniform_front
from anyblock_html_report.run import Json, Run, label_of
from anyblock_html_report.wording import (
    attention_units,
    cost_name,
    cost_unit,
    duration,
    ffn_units,
    half_text,
    kept_share,
    number,
    quantity,
)

_FRONT_POINTS: Final = 160
"""More points than these cannot be told apart on a screen."""
_CURVE: Final = {"steps", "tokens", "loss", "learning_rate", "held_out"}
"""What a line of `adapted.json` has under `curve` where something was trained; core/docs/distillation.md says what they are."""
_SHOWN_COSTS: Final = (
    "params",
    "active_params",
    "memory",
    "weight_memory",
    "kv_memory",
    "latency",
    "throughput",
    "bytes",
)


def view_of(run: Run) -> Json:
    """Return everything that the page draws of one run."""
    groups = options(run)
    return {
        "name": run.name,
        "metric": "KL" if run.scored_by_kl else run.metric,
        "unit": "nats per token" if run.scored_by_kl else f"of {run.metric}",
        "layers": layers(run),
        "damage": damage(run),
        "front": front(run, groups),
        "waterfall": waterfall(run),
        "stages": stages(run),
        "training": training(run),
        "curves": curves(run),
    }


def verdict(run: Run) -> list[tuple[str, bool]]:
    """Return one sentence about the child as pieces of text, each with whether it is a number that matters."""
    if not run.finished:
        done = list(run.stages)
        return [
            ("This run is not finished; ", False),
            (f"{len(done)} stages", True),
            (f" are: {', '.join(done)}.", False),
        ]
    own, teacher = run.summary.get("costs") or {}, run.summary.get("teacher_costs") or {}
    parts: list[tuple[str, bool]] = [("The child has ", False)]
    if teacher.get("params"):
        parts.append((_share(own["params"], teacher["params"]), True))
        parts.append((f" of its teacher’s {quantity(teacher['params'])} parameters", False))
    size = _size_cost(teacher)
    if teacher.get(size):
        parts.append((", and its file takes " if size == "bytes" else " and takes ", False))
        parts.append((quantity(own[size], "bytes"), True))
        parts.append((f" instead of {quantity(teacher[size], 'bytes')}", False))
    quality = run.summary.get("quality")
    if not quality:
        return [*parts, (". It was not compared with its teacher on any text.", False)]
    before, after = quality["teacher"], quality["child"]
    return [
        *parts,
        ("; it is ", False),
        (f"{number(quality['kl_per_token'])} nats", True),
        (" per token from its teacher (KL), its perplexity is ", False),
        (number(after["perplexity"]), True),
        (f" where the teacher’s is {number(before['perplexity'])}, and they agree on ", False),
        (f"{quality['top1']:.1%}", True),
        (" of the next tokens.", False),
    ]


def _size_cost(teacher: Mapping[str, float]) -> str:
    """Return what says how large a model is: its file, where storage types were searched."""
    return "bytes" if "bytes" in teacher else "weight_memory"


def figures(run: Run) -> list[tuple[str, str, str]]:
    """Return the numbers that matter: name, the child's value, and what to compare it with."""
    own, teacher = run.summary.get("costs") or {}, run.summary.get("teacher_costs") or {}
    found = [
        (cost_name(cost), quantity(own[cost], cost_unit(cost)), f"{_share(own[cost], teacher[cost])} of the teacher")
        for cost in ("params", _size_cost(teacher), "kv_memory", "latency")
        if teacher.get(cost) and cost in own
    ]
    if quality := run.summary.get("quality"):
        before, after = quality["teacher"], quality["child"]
        found.append(("KL per token", number(quality["kl_per_token"]), "nats; 0 is the teacher"))
        found.append(("perplexity", number(after["perplexity"]), f"{number(before['perplexity'])} of the teacher"))
        found.append(("same next token", f"{quality['top1']:.1%}", f"{quality['top5']:.1%} within five"))
        if before.get("tokens_per_second") and after.get("tokens_per_second"):
            speed = after["tokens_per_second"] / before["tokens_per_second"]
            found.append(("speed", f"{speed:.2f} ×", "tokens per second in the evaluation"))
    return found


def budgets(run: Run) -> list[tuple[str, str, str, str]]:
    """Return the budgets: what is bounded, the bounds, what the child uses, and which share of the upper bound."""
    rows = []
    for line in run.summary.get("budgets") or []:
        unit = cost_unit(line["cost"])
        low, high = (None if line[side] is None else quantity(line[side], unit) for side in ("lower", "upper"))
        bound = f"{low} to {high}" if low and high else f"at most {high}" if high else f"at least {low}"
        share = _share(line["used"], line["upper"]) if line["upper"] else "–"
        rows.append((cost_name(line["cost"]), bound, quantity(line["used"], unit), share))
    return rows


def layers(run: Run) -> list[Json]:
    """Return every layer's two halves: teacher and child in words, what is left of it, what was removed and its damage."""
    table = _candidates(run)
    rows = []
    for index, (teacher, child) in enumerate(zip(run.teacher_blocks, run.child_blocks, strict=True)):
        rows.append({str(half): _half(run, table, index, half, teacher, child) for half in HALVES})
    return rows


def _half(
    run: Run, table: dict[str, dict[str, Json]], layer: int, half: str, teacher: BlockConfig, child: BlockConfig
) -> Json:
    own, mine = teacher.half(half), child.half(half)
    measure: Any = attention_units if half == "attention" else ffn_units
    kind, units, _ = measure(own)
    left, rest, unit = measure(mine)
    group = group_name(layer, half)
    label = run.choices.get(group, "")
    storage = label.partition("@")[2]
    row: Json = {
        "kind": kind,
        "left": left,
        "teacher": half_text(own),
        "child": half_text(mine) + (f" in {storage}" if storage else ""),
        "share": round(kept_share(mine, own), 4),
        "units": [rest, units] if units <= 16 and unit != "channels" else [],
        "label": label,
    }
    options_here = table.get(group, {})
    before, after = _unchanged(options_here), options_here.get(label)
    if before and after:
        row["removed"] = {
            cost: before[cost] - after.get(cost, 0.0)
            for cost in ("params", "weight_memory", "kv_memory", "latency", "bytes")
            if cost in before and before[cost] != after.get(cost, 0.0)
        }
    if (own != mine or storage) and run.scores is not None:
        score = run.scores.get(f"{group}:{label}")
        row["damage"] = None if score is None or not math.isfinite(score) else score
    return row


def _candidates(run: Run) -> dict[str, dict[str, Json]]:
    """Return `{group: {label: costs}}`."""
    table: dict[str, dict[str, Json]] = {}
    for row in (run.candidates or {}).get("candidates", []):
        candidate = row["candidate"]
        group = f"block_{candidate['layer']}_{candidate['half']}"
        table.setdefault(group, {})[label_of(candidate)] = row["costs"]
    return table


def damage(run: Run) -> list[Json]:
    """Return for each half its candidates, and per candidate a score for every layer (None: not offered, -1: not finite)."""
    if run.candidates is None or run.scores is None:
        return []
    count, choices, table = len(run.teacher_blocks), run.choices, _candidates(run)
    found = []
    for half in HALVES:
        groups = {layer: table[group_name(layer, half)] for layer in range(count) if group_name(layer, half) in table}
        labels = dict.fromkeys(label for options_here in groups.values() for label in options_here)
        rows = []
        for label in sorted(labels, key=_order):
            scores: list[float | None] = []
            for layer in range(count):
                score = run.scores.get(f"{group_name(layer, half)}:{label}")
                if label == "teacher" and layer in groups:
                    score = 0.0
                scores.append(None if score is None else float(f"{score:.4g}") if math.isfinite(score) else -1)
            saved = [
                None if label not in groups.get(layer, {}) else _saved(groups[layer], label) for layer in range(count)
            ]
            rows.append({"label": label, "scores": scores, "saved": saved})
        chosen = [choices.get(group_name(layer, half)) for layer in range(count)]
        if len(rows) > 1:
            found.append({"half": half, "rows": rows, "chosen": chosen})
    return found


def _unchanged(table: Mapping[str, Json]) -> Json:
    """Return the costs of a half's own shape, in the largest storage type where types are searched."""
    return next((costs for label, costs in table.items() if label.partition("@")[0] == "teacher"), {})


def _saved(table: dict[str, Json], label: str) -> float:
    return float(f"{_unchanged(table).get('params', 0.0) - table[label].get('params', 0.0):.6g}")


def _order(label: str) -> tuple[int, str, int]:
    """Sort the teacher first, then kinds from large to small, then what leaves nothing; storage types stay as they are."""
    label = label.partition("@")[0]
    kind, _, size = label.rpartition("=")
    return {"teacher": 0, "linear": 2, "no_op": 3}.get(label, 1), kind, -int(size) if kind and size.isdigit() else 0


def front(run: Run, groups: Sequence[Options]) -> Json:
    """Return for every cost the predicted front, uniform children, and what was searched and measured."""
    teacher = run.summary.get("teacher_costs") or (run.candidates or {}).get("reference") or {}
    fixed = (run.candidates or {}).get("fixed") or {}
    budget = {line["cost"]: line["upper"] for line in run.summary.get("budgets") or []}
    names = [*budget, *(cost for cost in _SHOWN_COSTS if cost not in budget)]
    costs = {}
    for cost in names:
        if cost not in teacher:
            continue
        predicted = _thinned(predicted_front(groups, cost, fixed.get(cost, 0.0))) if groups else []
        costs[cost] = {
            "name": cost_name(cost),
            "unit": cost_unit(cost),
            "teacher": teacher[cost],
            "budget": budget.get(cost),
            "predicted": [[p.cost, p.score] for p in predicted] if len(predicted) > 1 else [],
            "uniform": [[p.cost, p.score, p.label] for p in _thinned(uniform_front(groups, cost, fixed.get(cost, 0.0)))]
            if groups
            else [],
            "quantized": [[*p] for p in quantized(groups, cost, fixed.get(cost, 0.0))] if cost == "bytes" else [],
            "points": [[*point] for point in _found(run, cost)],
        }
    return costs


def _found(run: Run, cost: str) -> Iterator[tuple[float, float, str, str]]:
    """Yield cost, divergence, `predicted` or `measured`, and what it is."""
    for solution in run.solutions or []:
        if cost in solution["costs"]:
            yield solution["costs"][cost], solution["score"], "predicted", "found by the search"
    for row in run.sweeps:
        if row.get("status") != "infeasible" and f"costs.{cost}" in row:
            yield (
                row[f"costs.{cost}"],
                row["score"],
                "predicted",
                f"sweep, {cost_name(row['cost'])} at most {quantity(row['asked'], cost_unit(row['cost']))}",
            )
    own = (run.summary.get("costs") or {}).get(cost)
    if own is None or not run.scored_by_kl:
        return  # what is measured is KL
    if run.refinement is not None:
        yield own, run.refinement["divergence"], "measured", "the refined child on the scoring text, before its repair"
    if (quality := run.summary.get("quality")) is not None and quality.get("kl_per_token") is not None:
        yield own, quality["kl_per_token"], "measured", "the finished child on the evaluation text"


def _thinned(points: list[Point]) -> list[Point]:
    if len(points) <= _FRONT_POINTS:
        return points
    last = len(points) - 1
    return [points[round(index * last / (_FRONT_POINTS - 1))] for index in range(_FRONT_POINTS)]


def waterfall(run: Run) -> list[Json]:
    """Return what each stage did to the KL: `text`, `name`, `from`, `to`; a total has no `from`.

    Values of different texts cannot be subtracted, so each text has totals of its own.
    """
    bars: list[Json] = []
    if run.solutions and run.scored_by_kl:
        bars.append(_total("scoring text", "sum of scores", run.solutions[0]["score"], predicted=True))
    if run.refinement is not None:
        end = run.refinement["divergence"]
        start = next((step["start"] for step in run.refinement["steps"]), end)
        bars.append(_total("scoring text", "searched child", start))
        at = start
        for step in run.refinement["steps"]:
            if step["kept"] and step["measured"] is not None:
                bars.append(_step("scoring text", f"refinement {step['number']}", at, step["measured"]))
                at = step["measured"]
        if at != start:
            bars.append(_total("scoring text", "refined child", end))
    last = None
    for name, found in run.adapted.items():
        before, after = found["before"], found["after"]
        if last is None and before is not None:
            bars.append(_total("held-out text", "before", before))
            last = before
        if found["kept"] and before is not None and after is not None:
            bars.append(_step("held-out text", name, before, after))
            last = after
    if run.adaptations and last is not None:
        bars.append(_total("held-out text", "adapted child", last))
    quality = run.summary.get("quality") or run.evaluation
    if quality and quality.get("kl_per_token") is not None:
        bars.append(_total("evaluation text", "child", quality["kl_per_token"]))
    return bars


def _total(text: str, name: str, value: float, *, predicted: bool = False) -> Json:
    return {"text": text, "name": name, "to": value, "predicted": predicted}


def _step(text: str, name: str, before: float, after: float) -> Json:
    return {"text": text, "name": name, "from": before, "to": after}


def stages(run: Run) -> list[Json]:
    """Return every stage's seconds, peak memory in bytes, whether it was reused, and what it did, in words."""
    lines = run.summary.get("stages") or [
        {"name": name, "seconds": done["seconds"], "memory": done.get("peak_memory"), "reused": False, "quality": ""}
        for name, done in run.stages.items()
    ]
    return [
        {
            **line,
            "time": duration(line["seconds"]),
            "held": "–" if line["memory"] is None else quantity(line["memory"], "bytes"),
        }
        for line in lines
    ]


def training(run: Run) -> list[Json]:
    """Return per stage that adapted weights, and per layer or subblock, the error before and after it."""
    found = []
    for name, stage in run.adapted.items():
        rows = []
        for line in stage["lines"]:
            before, after = (
                line.get(key) for key in (("plain_error", "error") if "group" in line else ("before", "after"))
            )
            if isinstance(before, int | float) and isinstance(after, int | float):
                where = line.get("group", f"layer {line['layer']}" if "layer" in line else "whole model")
                rows.append({"where": where.replace("block_", "").replace("_", " "), "before": before, "after": after})
        if rows:
            found.append({"name": name, "rows": rows, "kept": stage["kept"]})
    return found


def curves(run: Run) -> list[Json]:
    """Return per stage that trained how each training went: `loss` and `rate` by tokens, `held` by tokens as pairs.

    Nothing is said of stages that only fit, and of runs of earlier versions, which kept no curves.
    """
    found = []
    for name, stage in run.adapted.items():
        lines = [
            line for line in stage["lines"] if (line.get("curve") or {}).keys() >= _CURVE and line["curve"]["steps"]
        ]
        trainings = [
            {
                "where": f"layer {line['layer']}" if "layer" in line else "whole model",
                "tokens": line["curve"]["tokens"],
                "loss": [float(f"{loss:.4g}") for loss in line["curve"]["loss"]],
                "held": _by_tokens(line["curve"]),
            }
            for line in lines
        ]
        if lines:
            # All trainings of a stage have the same steps, those that diverged fewer of them.
            longest = max((line["curve"] for line in lines), key=lambda curve: len(curve["steps"]))
            rate = {"tokens": longest["tokens"], "steps": longest["steps"], "rate": longest["learning_rate"]}
            error = "relative error" if "layer" in lines[0] else "KL, nats per token"
            found.append({"name": name, "kept": stage["kept"], "error": error, "trainings": trainings, **rate})
    return found


def _by_tokens(curve: Json) -> list[list[float]]:
    """Return what was measured on held-out text, by the tokens that had been trained on."""
    tokens = dict(zip([0, *curve["steps"]], [0, *curve["tokens"]], strict=True))
    nearest = sorted(tokens)
    return [
        [tokens[max(at for at in nearest if at <= step)], float(f"{error:.4g}")] for step, error in curve["held_out"]
    ]


def _share(value: float, base: float) -> str:
    return f"{value / base:.1%}" if base else "–"
