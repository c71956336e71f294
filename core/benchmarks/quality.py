"""How good children of the same size are, on kinds of text that they were calibrated on and on kinds that they never saw.

    python core/benchmarks/quality.py [MODEL] [--budgets 0.9,0.8,0.7,0.6] [--seeds 0,1,2] [--methods ...]

Every method makes a child of MODEL (the demonstration's SmolLM2-135M-Instruct unless given) at every share of the parameters,
calibrated on the same mixture of texts, and every child is compared with its teacher on text of every kind that nothing was
calibrated on or chosen by. The reference's choice is also repaired and trained exactly as ours is. Finished rows are kept in the
folder `--output`; started again, the benchmark continues from there. `--page` writes the tables and the plot as a page.
Times are processor seconds of one thread, since a shared machine makes others meaningless.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import torch
from anyblock import compress, evaluate
from anyblock.calibration.batches import Batches
from anyblock.calibration.packing import pack_text
from anyblock.calibration.tokenizer import load_tokenizer
from anyblock.candidates.candidate import NO_OP, TEACHER, Candidate
from anyblock.candidates.candidate_weights import CandidateWeights
from anyblock.candidates.sources import Orders
from anyblock.config import RunConfig, load_config
from anyblock.contract.blocks import HALVES
from anyblock.modeling.load import load_model
from anyblock.modeling.process_memory import peak_memory, reset_peak_memory
from anyblock.progress import SILENT
from anyblock.realize.realize import realize
from anyblock.run.context import RunContext, RunModel
from anyblock.run.model_source import read_source
from anyblock.run.run_folder import RunFolder
from anyblock.search import solve
from anyblock.stages.candidates import keep_candidates, plan_candidates
from anyblock.stages.data import TokenData
from anyblock.stages.importance import hook_plans, run_importance
from anyblock.stages.search import build_problem, chosen_candidates
from anyblock.stages.teacher import run_teacher
from quality_page import commit, page, plot
from quality_texts import Kind, kinds, mixture
from torch import nn

ROOT = Path(__file__).parents[2]
KIND = "ffn_intermediate"
ITERATIVE = ["pruning.ffn.hook=IterativeChannelContributionHook"]
REFERENCE = ["scoring.metric=cosine", "search.refine_rounds=0", *ITERATIVE]
ONE_SEARCH = ["search.refine_rounds=0"]
PLAIN = ["pruning.repair.method=none"]
BLOCKS = [
    "distillation.blocks.enabled=true",
    "distillation.blocks.epochs=4",  # twice the default, and at twice its rate: more time, less KL
    "distillation.blocks.learning_rate=2e-3",
]
MODEL = [*BLOCKS, "distillation.model.enabled=true"]
RECIPES: dict[str, tuple[str, list[str]]] = {
    "reference's recipe": ("reference", [*REFERENCE, *PLAIN]),
    "reference's, repaired": ("reference", REFERENCE),
    "reference's, blocks distilled": ("reference", [*REFERENCE, *BLOCKS]),
    "reference's, model distilled": ("reference", [*REFERENCE, *MODEL]),
    "ours, one search, plain": ("ours-plain", [*ONE_SEARCH, *PLAIN]),
    "ours, one search, iterative order": ("ours-iterative", [*ONE_SEARCH, *ITERATIVE]),
    "ours, one search": ("ours", ONE_SEARCH),
    "ours, repaired to the stream": ("ours", [*ONE_SEARCH, "pruning.repair.target=stream"]),
    "ours, refined": ("ours", []),
    "ours, blocks distilled": ("ours", BLOCKS),
    "ours, model distilled": ("ours", MODEL),
}
"""The run folder that a recipe works in, whose finished stages serve the others in it, and its settings."""
BASELINES = ("random", "magnitude", "uniform width", "depth by block influence")
METHODS = (*BASELINES, *RECIPES)
DEFAULT_METHODS = tuple(name for name in METHODS if not name.endswith("model distilled"))


@dataclass(frozen=True)
class Row:
    """One child.

    Attributes:
        method, share, seed: what made it, the share of the teacher's parameters that it was allowed, and which order of the text.
        parameters: what it has.
        kl, perplexity, top1: by kind of text; KL(teacher || child) in nats a token.
        cpu: processor seconds that this method took beyond the rows it builds on; None where it went on from an interrupted run.
        memory: most main memory meanwhile, in bytes.
        commit: of the code that measured this.
    """

    method: str
    share: float
    seed: int
    parameters: int
    kl: dict[str, float]
    perplexity: dict[str, float]
    top1: dict[str, float]
    cpu: float | None
    memory: int
    commit: str


def main() -> None:
    """Measure what is missing, print the tables of all that was measured, and write the page if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", help="a Hugging Face directory; SmolLM2-135M-Instruct if not given")
    parser.add_argument("--budgets", default="0.9,0.8,0.7,0.6")
    parser.add_argument("--seeds", default="0", help="orders of the calibration text")
    parser.add_argument("--methods", default=";".join(DEFAULT_METHODS), help=f"of {'; '.join(METHODS)}")
    parser.add_argument("--tokens", type=int, default=32768, help="calibration tokens")
    parser.add_argument("--scoring-tokens", type=int, default=4096)
    parser.add_argument("--evaluation-tokens", type=int, default=8192, help="of each kind of text")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="further settings of all recipes"
    )
    parser.add_argument("--output", type=Path, default=ROOT / "demo-output" / "quality")
    parser.add_argument("--page", type=Path, help="write the tables here, and the plot next to it as .svg")
    arguments = parser.parse_args()
    methods = [name.strip() for name in arguments.methods.split(";")]
    if unknown := set(methods) - set(METHODS):
        parser.error(f"unknown method {sorted(unknown)[0]!r}")
    arguments.output.mkdir(parents=True, exist_ok=True)
    ledger, found = arguments.output / "rows.jsonl", kinds()
    rows = [Row(**json.loads(line)) for line in ledger.read_text().splitlines()] if ledger.is_file() else []
    for seed in map(int, arguments.seeds.split(",")):
        bench = Benchmark(arguments, found, seed)
        for share in map(float, arguments.budgets.split(",")):
            for method in methods:
                if any((row.method, row.share, row.seed) == (method, share, seed) for row in rows):
                    continue
                rows.append(row := bench.measure(method, share))
                with ledger.open("a") as file:
                    file.write(json.dumps(asdict(row)) + "\n")
                _note(f"{share:.0%} {method}, seed {seed}: KL {', '.join(f'{k} {v:.3f}' for k, v in row.kl.items())}")
    rows.sort(key=lambda row: (-row.share, METHODS.index(row.method), row.seed))
    facts = {
        "model": Path(arguments.model).name if arguments.model else "SmolLM2-135M-Instruct",
        "seen": [kind.name for kind in found if kind.seen],
        "unseen": [kind.name for kind in found if not kind.seen],
        "calibration tokens": arguments.tokens,
        "scoring tokens": arguments.scoring_tokens,
        "evaluation tokens": arguments.evaluation_tokens,
        "settings": arguments.set,
    }
    print(page(rows, facts, None))
    if arguments.page:
        picture = arguments.page.with_suffix(".svg")
        plot(rows, facts, picture)
        arguments.page.write_text(page(rows, facts, picture.name))


class Benchmark:
    """A teacher, its texts, and the children that are measured, for one order of the calibration text.

    Args:
        arguments: the command line.
        found: the kinds of text.
        seed: of the order.
    """

    def __init__(self, arguments: argparse.Namespace, found: list[Kind], seed: int) -> None:
        self.arguments = arguments
        self.seed = seed
        self.output: Path = arguments.output / f"seed-{seed}"
        self.output.mkdir(exist_ok=True)
        self.model = Path(arguments.model) if arguments.model else _demonstration_model()
        self.text = self.output / "calibration.txt"
        self.text.write_text(mixture(found, seed), encoding="utf-8")
        self.kinds = found

    def config(self, name: str, share: float, *more: str, run: str) -> RunConfig:
        """Return the configuration of one run."""
        given = self.arguments
        settings = [
            f"data.path={self.text}",
            f"data.calibration_tokens={given.tokens}",
            f"data.scoring_tokens={given.scoring_tokens}",
            "data.evaluation_tokens=1024",  # which nothing here looks at
            f"dtype={given.dtype}",
            f"run_dir={self.output / run}.run",
            f"search.budget=[params={share}x]",
            "evaluation.enabled=false",
            *given.set,
            *more,
        ]
        return load_config(None, settings, {"model": str(self.model), "output": str(self.output / name)})

    @cached_property
    def base(self) -> Base:
        """The stages that the baselines share."""
        return Base(self.config("base", 0.8, *ITERATIVE, run="base"))

    @cached_property
    def evaluations(self) -> dict[str, Batches]:
        """The tokens that children are evaluated on, by kind of text."""
        tokenizer, most = load_tokenizer(self.model), self.arguments.evaluation_tokens
        return {k.name: Batches(pack_text(k.unseen, tokenizer, 512, max_tokens=most), 4) for k in self.kinds}

    @cached_property
    def teacher(self) -> Remembered:
        """The teacher, which keeps what it said on the evaluation texts."""
        return Remembered(load_model(self.model, dtype=self.arguments.dtype))

    def measure(self, method: str, share: float) -> Row:
        """Make one child and compare it with its teacher."""
        path = self.output / f"child-{METHODS.index(method)}-{share}"
        if method in RECIPES:
            run, settings = RECIPES[method]
            stages = self.output.glob(f"{run}.run/stages/*")
            interrupted = any(not (stage / "stage.json").is_file() for stage in stages)
        else:
            interrupted, _ = False, self.base
        reset_peak_memory()
        begin = time.process_time()
        if method in RECIPES:
            compress(self.config(path.name, share, *settings, run=run), overwrite=True)
        else:
            chosen, orders = BASELINE[method](self.base, share)
            realize(self.base.context.teacher.checkpoint, chosen, self.base.weights(orders), path, overwrite=True)
        cpu, memory = None if interrupted else time.process_time() - begin, peak_memory() or 0
        child = load_model(path, dtype=self.arguments.dtype)
        results = {name: evaluate(child, data=ids, teacher=self.teacher) for name, ids in self.evaluations.items()}
        shutil.rmtree(path)
        return Row(
            method,
            share,
            self.seed,
            sum(tensor.numel() for tensor in child.parameters()),
            {name: result.kl_per_token or 0.0 for name, result in results.items()},
            {name: result.perplexity for name, result in results.items()},
            {name: result.top1 or 0.0 for name, result in results.items()},
            cpu,
            memory,
            commit(),
        )


class Base:
    """What all methods share: teacher, tokens, candidates, importance."""

    def __init__(self, config: RunConfig) -> None:
        source = read_source(Path(config.model))
        run = RunFolder(Path(config.run_dir or ""))
        self.costed = plan_candidates(config, source, source)
        plans = hook_plans(config, source)
        data = TokenData(config, source, run)
        with run.locked():
            keep_candidates(run, self.costed)
            self.tokens: Mapping[str, Batches] = data.batches()
            teacher = RunModel(config, source, run_teacher(config, run, source, SILENT), SILENT)
            self.context = RunContext(config, run, SILENT, teacher, teacher)
            self.orders: Orders = run_importance(self.context, plans, self.tokens["calibration"])
        self.mixin = source.family.pruning_mixins()[KIND]
        self.total = self.costed.reference["params"]

    def weights(self, orders: Orders) -> CandidateWeights:
        """Return the weights of candidates whose units are sorted like this."""
        return CandidateWeights(
            self.context.teacher.checkpoint, self.context.family, self.context.teacher.text_config, orders
        )

    def narrowed(self, width: int) -> list[Candidate]:
        """Return the child whose ffns all have this width."""
        blocks = enumerate(self.context.teacher.checkpoint.block_configs)
        config = self.context.teacher.text_config
        return [Candidate(i, "ffn", KIND, width, self.mixin.resize(block, width, config)) for i, block in blocks]

    def uniform(self, share: float) -> list[Candidate]:
        """Return the child with the widest ffns of one width that keep the budget."""
        blocks = self.context.teacher.checkpoint.block_configs
        full = self.mixin.size(blocks[0])
        weights = self.weights({})
        one, two = (sum(t.numel() for c in self.narrowed(w) for t in weights.subblock(c).values()) for w in (1, 2))
        cut = -(-(1 - share) * self.total // (two - one))
        return self.narrowed(int(full - cut))


def uniform_width(base: Base, share: float) -> tuple[list[Candidate], Orders]:
    """All ffns are cut to one width; the importance hook says which channels stay."""
    return base.uniform(share), base.orders


def magnitude(base: Base, share: float) -> tuple[list[Candidate], Orders]:
    """All ffns are cut to one width; the channels with the largest weights stay."""
    orders = {}
    for index in range(len(base.context.teacher.checkpoint.block_configs)):
        tensors = base.context.teacher.checkpoint.load(f"block_{index}_ffn")
        size = base.mixin.size(base.context.teacher.checkpoint.block_configs[index])
        score = torch.zeros(size, dtype=torch.float64)
        for tensor in tensors.values():
            if tensor.dim() == 2:  # the axis of channels is the first of gate and up, the last of down
                axis = 1 if tensor.shape[0] == size else 0
                score += tensor.double().square().sum(axis)
        orders[index, KIND] = (-score).argsort(stable=True)
    return base.uniform(share), orders


def random_choice(base: Base, share: float) -> tuple[list[Candidate], Orders]:
    """Random scores, the same search, random channels."""
    generator = torch.Generator().manual_seed(0)
    scores = {c.key: float(torch.rand((), generator=generator)) for c in base.costed.to_score}
    bounds = load_config(None, [f"search.budget=[params={share}x]"], {"model": "-", "output": "-"}).search.bounds()
    chosen = chosen_candidates(base.costed, solve(build_problem(base.costed, scores, bounds)))
    orders = {key: torch.randperm(len(order), generator=generator) for key, order in base.orders.items()}
    return chosen, orders


@torch.no_grad()
def depth(base: Base, share: float) -> tuple[list[Candidate], Orders]:
    """Whole layers go, those first that turn their input least (ShortGPT, Men et al. 2024); as few as the budget allows."""
    engine = base.context.teacher.engine
    far = [0.0] * engine.num_layers
    for ids in base.tokens["scoring"]:
        batch = engine.prepare(ids)
        hidden = batch.hidden
        for index in range(engine.num_layers):
            output = engine.run(index, hidden, batch)
            far[index] += float((1 - nn.functional.cosine_similarity(hidden, output, dim=-1)).sum())
            hidden = output
    chosen: list[Candidate] = []
    left = base.total
    weights = base.weights({})
    for index in sorted(range(engine.num_layers), key=far.__getitem__):
        if left <= share * base.total:
            break
        block = engine.block_configs[index]
        for half in HALVES:
            own = Candidate(index, half, TEACHER, 0, block)
            left -= sum(tensor.numel() for tensor in weights.subblock(own).values())
            gone = block.with_attention(no_op=True) if half == "attention" else block.with_ffn(no_op=True)
            chosen.append(Candidate(index, half, NO_OP, 0, gone))
    return chosen, {}


BASELINE: dict[str, Callable[[Base, float], tuple[list[Candidate], Orders]]] = {
    "random": random_choice,
    "magnitude": magnitude,
    "uniform width": uniform_width,
    "depth by block influence": depth,
}


class Remembered(nn.Module):
    """A model that runs once on every batch and gives the same logits when it is asked again."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.config = model.config
        self._known: dict[str, torch.Tensor] = {}

    def get_input_embeddings(self) -> nn.Module:
        """Return the model's own."""
        return self.model.get_input_embeddings()  # type: ignore[operator,no-any-return]

    def forward(self, input_ids: torch.Tensor, use_cache: bool = False) -> torch.Tensor:
        """Return logits, [batch, length, vocabulary]."""
        key = Batches(input_ids).key
        if key not in self._known:
            self._known[key] = self.model(input_ids=input_ids, use_cache=use_cache).logits
        return self._known[key]


def _demonstration_model() -> Path:
    sys.path.insert(0, str(ROOT / "demo"))
    from teacher import prepare_teacher

    return prepare_teacher(ROOT / "demo-output")


def _note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
