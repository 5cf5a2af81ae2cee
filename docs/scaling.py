"""Write docs/scaling.md: what sweeps of large models cost, from measured rates and counted work.

    python docs/scaling.py [benchmarks/results/rates-NAME.json]

Operations are counted by `interp.engine.explain` on shapes without weights. Rates are those of
benchmarks/rates.py: of the CPU by default, from which hours on a GPU are computed with its
published rates; of a GPU where its file is given.
"""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from math import floor, log10
from pathlib import Path
from typing import Any

from counted import LENGTH, SCANS, SHAPES, VOCAB, Work, outline, shape

from interp.engine.explain_edges import readers
from interp.engine.memory import bytes_kept, bytes_per_token
from interp.engine.replay import Replay

HERE = Path(__file__).parent
RESULTS = HERE.parent / "benchmarks" / "results"
CPU_RATES = RESULTS / "rates-cpu.json"

GPUS = (1, 8, 64)
RANGE = (0.3, 0.6)


@dataclass(frozen=True)
class Card:
    """A GPU as its maker publishes it: bytes, operations a second, bytes a second."""

    name: str
    memory: float
    bfloat16: float
    float32: float
    bandwidth: float


H100 = Card("H100", 80e9, 989e12, 67e12, 3.35e12)
H200 = Card("H200", 141e9, 989e12, 67e12, 4.8e12)
MACHINE = 8  # GPUs that one process can shard a model over


@dataclass(frozen=True)
class Rates:
    """What a machine does and which share of it the engine reaches, by benchmarks/rates.py."""

    found: dict[str, Any]

    @property
    def measured(self) -> bool:
        """Whether they are those of a GPU."""
        return self.found["device"] != "cpu"

    @property
    def width(self) -> str:
        """The largest width."""
        return max(self.found["widths"], key=int)

    def share(self, work: str) -> float:
        """Of a kind of work, at the largest width."""
        return self.found["widths"][self.width][work]["share"]

    def seconds(self, work: Work, kind: str, share: float | None = None) -> float:
        """On one GPU: at the share that was measured, or at another."""
        found = self.found
        flops = found["flops_a_second"] if self.measured else H200.bfloat16
        bandwidth = found["bytes_a_second"] if self.measured else H200.bandwidth
        own = share or self.share(kind)
        took = (work.flops / flops + work.products / H200.float32) / own
        return took + work.read / bandwidth / (share or self.share("writing"))


def gpus_of_a_copy(name: str, card: Card) -> int | None:
    """The fewest GPUs of a machine that hold a copy of the model and what one prompt takes."""
    replay = outline(name)
    needed = weights(name) + room(replay)
    count = -int(-needed // card.memory)
    return count if count <= MACHINE else None


def weights(name: str) -> float:
    """Bytes of all parameters in bfloat16."""
    return float(sum(each.numel() for each in shape(name).hf.parameters()) * 2)


def room(replay: Replay) -> float:
    """Bytes that must be free: a clean run and its source in a quarter of them, a train in half.

    Clean runs without that room are kept on the host, which is slower.
    """
    return LENGTH * max(8 * bytes_kept(replay), 2 * bytes_per_token(replay))


def copies(name: str, gpus: int) -> int:
    """Copies of a model that so many GPUs hold, in machines of eight."""
    each = gpus_of_a_copy(name, H200)
    return 0 if each is None else min(gpus, MACHINE) // each * max(1, gpus // MACHINE)


def two_digits(number: float) -> str:
    """A number rounded to two digits, with commas."""
    digits = 1 - floor(log10(abs(number)))
    return f"{round(number, digits):,.{max(0, digits)}f}"


def times(*seconds: float) -> str:
    """A time, or a range of times, in the unit that suits the longest."""
    if max(seconds) < 60:
        return "< 1 min"
    units = (("years", 365 * 86400.0), ("days", 86400.0), ("h", 3600.0), ("min", 60.0))
    unit, size = next((each for each in units if max(seconds) >= 1.5 * each[1]), units[-1])
    return f"{'–'.join(two_digits(each / size) for each in seconds)} {unit}"


def amount(number: float) -> str:
    """A number of bytes."""
    units = (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3))
    unit, size = next(each for each in units if number >= each[1])
    return f"{two_digits(number / size)} {unit}"


def table(*rows: tuple[str, ...]) -> str:
    """Rows in Markdown, the first of them the heading, numbers to the right."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|---|" + "---:|" * (len(rows[0]) - 1), *lines[1:]])


def told(text: str) -> str:
    """A paragraph, or a point of a list, in lines of a page."""
    indent = "  " if text.startswith("- ") else ""
    return textwrap.fill(
        " ".join(text.split()),
        108,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def points(*texts: str) -> str:
    """A list."""
    return "\n".join(told(f"- {text}") for text in texts)


def page(rates: Rates) -> str:
    """The whole page, as Markdown."""
    parts = [HEAD, *_source(rates), *_scans(rates), *_memory(rates), RUN, *_growth(), *_screens()]
    return "\n\n".join(parts) + "\n"


HEAD = """# What it costs on large models

<!-- Made by docs/scaling.py: change that, not this page. -->"""


def _source(rates: Rates) -> Iterator[str]:
    """Where the numbers come from."""
    found = rates.found
    shares = told(
        f"{rates.share('head sweep'):.0%} in a sweep over heads, {rates.share('edge sweep'):.0%} "
        f"over edges, {rates.share('edge attribution'):.0%} in EAP-IG, "
        f"{rates.share('reading'):.0%} in reading a long text; in writing, "
        f"{rates.share('writing'):.0%} of the bytes that can be read"
    )
    if rates.measured:
        yield told(
            f"Rates are measured on {found['hardware']} in {found['dtype']}, at width "
            f"{rates.width}; times are computed from them and from counted operations. Products of "
            f"large matrices do {two_digits(found['flops_a_second'] / 1e12)} TFLOP/s there, of "
            f"which the engine reaches {shares}."
        )
    else:
        yield "**Every time on this page is computed; none was measured on a GPU.** It is"
        yield "    counted operations / (published rate of the GPU x share that the engine reaches)"
        yield points(
            f"*The rates* are those of the data sheet of the NVIDIA H200 SXM: "
            f"{H200.bfloat16 / 1e12:.0f} TFLOP/s in bfloat16 without sparsity, "
            f"{H200.float32 / 1e12:.0f} in float32, {H200.bandwidth / 1e12} TB/s of memory, "
            f"{H200.memory / 1e9:.0f} GB. The H100 SXM has the same two rates, "
            f"{H100.bandwidth / 1e12} TB/s and {H100.memory / 1e9:.0f} GB.",
            f"*The share* is unknown on a GPU. Tables give a range, from {RANGE[1]:.0%} to "
            f"{RANGE[0]:.0%}; and beside it what the share on a CPU would give, measured at width "
            f"{rates.width} in {found['dtype']} ({found['hardware']}): {shares}. A share is of the "
            f"products of large matrices there, {two_digits(found['flops_a_second'] / 1e9)} "
            "GFLOP/s; those of a GPU stay below its published rate, so the range is the better "
            "guess.",
            "For measured rates, run `python benchmarks/rates.py --save` on your GPU (with "
            "`--device cuda --dtype bfloat16 --widths 2048,4096,8192`), and `python "
            "docs/scaling.py` with the file that it writes.",
        )
    yield told(
        "*Operations* are those of matrix products that `interp.engine.explain` foretells for a "
        "shape without weights. It makes the plan of the real sweep, and the tests hold it to "
        "within a few per cent of what torch counts in one. *A loop* does a whole forward with "
        "all logits for each site and prompt."
    )


def _scans(rates: Rates) -> Iterator[str]:
    shapes = "; ".join(
        f"{name}, {layers} layers of width {width:,}, {heads} heads, {kv} of keys and values, MLP "
        f"of {mlp:,}"
        for name, (layers, width, heads, kv, mlp, _) in SHAPES.items()
    )
    yield told(
        "The models have the published shapes of Llama 3.2 1B and Llama 3.1 8B, 70B and 405B "
        f"({shapes}; {VOCAB:,} tokens), in bfloat16. *GPU time* adds up all GPUs on which a copy "
        "of the model lies; the last three columns are what the clock shows, a dash where no copy "
        "fits. Loading the weights comes on top."
    )
    for title, (kind, text, work) in SCANS.items():
        yield f"## {title}"
        yield told(text)
        yield _scan(rates, kind, [(name, work(name)) for name in SHAPES])


def _scan(rates: Rates, kind: str, works: list[tuple[str, Work]]) -> str:
    shares = [None] if rates.measured else RANGE[::-1]
    looped = ("a loop's",) if works[0][1].saved else ()
    cpu = () if rates.measured else ("at the CPU's share",)
    clocks = tuple(f"{gpus} GPU{'s' * (gpus > 1)}" for gpus in GPUS)
    rows = [("model", "sites", "operations", *looped, "GPU time", *cpu, *clocks)]
    for name, work in works:
        held = gpus_of_a_copy(name, H200) or 1
        spread = [rates.seconds(work, kind, share) for share in shares]
        rows.append(
            (
                name,
                f"{work.sites:,}",
                f"{work.flops + work.products:.1e}".replace("e+", "e"),
                *([f"{two_digits(work.saved)} x"] if work.saved else []),
                times(*(held * each for each in spread)),
                *([times(held * rates.seconds(work, kind))] if cpu else []),
                *(
                    times(*(each / n for each in spread)) if (n := copies(name, gpus)) else "–"
                    for gpus in GPUS
                ),
            )
        )
    return table(*rows)


def _memory(rates: Rates) -> Iterator[str]:
    cards = [f"{card.name}s a copy" for card in (H100, H200)]
    rows = [
        (
            "model",
            "weights",
            "a token kept",
            "a token that rides",
            *cards,
            "edges, listed",
            "scored",
        )
    ]
    for name in SHAPES:
        replay, edges = outline(name), list(readers(outline(name)))
        units = sum(some.units for some in edges)
        rows.append(
            (
                name,
                amount(weights(name)),
                amount(bytes_kept(replay)),
                amount(bytes_per_token(replay)),
                *(str(gpus_of_a_copy(name, card) or "–") for card in (H100, H200)),
                amount(sum(some.edges for some in edges) * rates.found["bytes_an_edge"]),
                amount(8 * units * edges[-1].sources),
            )
        )
    yield "## What has to fit"
    yield table(*rows)
    yield points(
        "*A token kept* is what a clean run keeps of it, about five streams a layer with keys and "
        "values among them. A quarter of the memory beside the weights may hold those of some "
        "prompts and their counterfactuals; what has no room is kept on the host, which is slower.",
        "*A token that rides* is what it takes at the widest moment of a block. Up to half of "
        "the memory beside the weights is filled with those: a smaller GPU does the same in more "
        "trains.",
        f"*A copy* is given weights + {LENGTH} x max(8 x kept, 2 x riding) bytes, for prompts of "
        f"{LENGTH} tokens, on as few GPUs as hold that. It must lie in one machine, here of "
        f"{MACHINE} GPUs: a dash says that it does not fit. GPUs that are left over are idle, and "
        "not counted.",
        f"*Edges* of a whole model are listed in Python, {rates.found['bytes_an_edge']:.0f} bytes "
        "each. EAP-IG *scores* take 8 bytes for each component and reader, of every pair in a "
        "batch. At the largest models these end before the time does: name the edges that you "
        "want.",
    )


RUN = """## What to run

A model that fits a GPU: in this process; a copy on each of several GPUs; a copy in each worker of a
[cluster](cluster.md).

```sh
interp sweep MODEL --task ioi --dtype bfloat16 --out runs/heads
interp sweep MODEL --task ioi --dtype bfloat16 --out runs/heads --devices cuda:0,cuda:1
interp sweep MODEL --task ioi --dtype bfloat16 --out runs/heads --engine ray --address auto
```

A model that is larger is laid over the GPUs of the machine:

```sh
interp sweep MODEL --task ioi --dtype bfloat16 --out runs/heads --device auto
```

- Those GPUs take turns, so that it is as fast as one GPU that could hold it: use the fewest that
  hold it, and more copies. Neither `--devices` nor a cluster takes a model that is spread: start a
  process for each copy, with GPUs of its own in `CUDA_VISIBLE_DEVICES`, and its own share of the
  sites in a run of its own.
- Any of them can be stopped, and goes on where it was.
- Times above divide the work evenly among copies; the last chunk of the slowest comes on top.
- In Python these are `engine=` and `run=` of `interp.ablate`, `interp.engine.patch_edges` and
  others, and `device_map=` of `interp.load`. `interp.attribute` (EAP-IG) and
  `interp.heads.retrieval` run in one process and keep nothing on the way: for the last columns of
  their tables, give each process some of the prompts.

What a sweep of your own will cost is told without weights and without a GPU. What the blocks of an
architecture allow is tried on a small model of it:

```python
import torch
import transformers

import interp
from interp.engine import Mean, everywhere, explain

config = transformers.LlamaConfig(
    num_hidden_layers=32,
    hidden_size=4096,
    num_attention_heads=32,
    num_key_value_heads=8,
    intermediate_size=14336,
    vocab_size=128256,
)
with torch.device("meta"):
    module = transformers.LlamaForCausalLM(config).to(torch.bfloat16)
small = interp.load("polymath-llama", check=False)
model = interp.load(module, small.tokenizer, check=False)
prompts = interp.tasks.get("ioi").sample(small, n=32, seed=0)
print(explain(model, prompts, everywhere(interp.sites.heads(model), Mean()), like=small))
```"""


def _growth() -> Iterator[str]:
    measured = json.loads((RESULTS / "scale-cpu.json").read_text(encoding="utf-8"))
    store, grown = measured["store"], measured["memory"]
    most, longest = (max(grown[kind], key=int) for kind in ("interventions", "prompts"))
    many, long = grown["interventions"][most], grown["prompts"][longest]
    yield "## What grows with what"
    yield points(
        "**Time** grows with prompts, tokens, interventions and parameters. About half of a loop's "
        "is saved where interventions are spread over depth, since nothing runs again before the "
        "layer of a change; more where they begin late in the prompt.",
        "**Heads** grow with depth x width, **edges** with the square of that: patching all of "
        "them exactly is for models up to 8B, and for edges that EAP-IG has picked.",
        "**Results** take 4 bytes for each intervention and prompt; those of EAP-IG 8 bytes. A "
        "run holds them twice, as chunks and whole.",
        f"**Interventions** take memory as Python objects: {int(most):,} of them on "
        f"{many['prompts']} prompts take {many['given_mb']:.0f} MB before the sweep, and at most "
        f"{many['peak_mb']:.0f} MB during it.",
        "**Other memory** grows far less than in proportion, since interventions ride in trains "
        "and prompts run in groups: beyond what is given to the sweep, "
        f"{_beyond(grown, 'prompts')} for {_counts(grown, 'prompts')} prompts with all "
        f"{long['interventions']} heads of polymath, {_beyond(grown, 'interventions')} for "
        f"{_counts(grown, 'interventions')} interventions. All are beyond what a sweep of 4 "
        "prompts had taken (`benchmarks/scale.py`, on a CPU).",
        f"**A run** writes to disk what is finished, chunk by chunk. That took "
        f"{store['share_in_the_store']:.1%} of the time of a sweep there, which took "
        f"{store['cpu_ratio']:.3f} times the CPU seconds of one without a run (95% interval "
        f"{' to '.join(f'{end:.3f}' for end in store['cpu_ratio_interval'])}).",
    )


def _beyond(grown: dict[str, Any], kind: str) -> str:
    """Megabytes beside what each sweep is given."""
    sizes = [each["peak_mb"] - each["given_mb"] for each in grown[kind].values()]
    return f"{', '.join(f'{size:.0f}' for size in sizes[:-1])} and {sizes[-1]:.0f} MB"


def _counts(grown: dict[str, Any], kind: str) -> str:
    counts = [f"{int(count):,}" for count in grown[kind]]
    return f"{', '.join(counts[:-1])} and {counts[-1]}"


def _screens() -> Iterator[str]:
    text = (RESULTS / "sweeps-cpu.json").read_text(encoding="utf-8")
    races = json.loads(text)["parts"]["racing"]
    yield "## When the top is enough"
    yield told(
        "If only the largest effects are wanted, `interp.engine.screen(model, prompts, k=20)` "
        "races the sites and stops running those that are out. `benchmarks/sweeps.py` measures it "
        "on small models:"
    )
    yield points(
        *(
            f"{name}: {one['share_of_runs']['normal']:.0%} of the runs for the top {one['k']} of "
            f"{one['sites']} heads on {one['prompts']} prompts. Of the true ones "
            f"{one['recall_mean']['normal']:.0%} were among them, at least "
            f"{one['recall_least']['normal']:.0%} (mean and least of {one['seeds']} seeds)."
            for name, one in races.items()
        )
    )
    yield told(
        'With `by="attribution"` a run backward ranks the sites and the best of them are run, '
        "which "
        "misses what gradients miss. Run the full sweep where small effects or their distribution "
        "are the question."
    )


def read(file: Path) -> Rates:
    """The rates in a file of benchmarks/rates.py."""
    return Rates(json.loads(file.read_text(encoding="utf-8")))


if __name__ == "__main__":
    rates = read(Path(sys.argv[1]) if len(sys.argv) > 1 else CPU_RATES)
    (HERE / "scaling.md").write_text(page(rates), encoding="utf-8")
