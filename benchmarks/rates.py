"""How much of what a machine can do does the engine do?

    python benchmarks/rates.py [--device cpu] [--dtype float32] [--widths 512,1024,2048] [--save]

The machine: products of large matrices, and reading a large tensor. The engine, on llama-like
models of 4 layers and growing width with random weights: a sweep over all heads, all edges patched
exactly, all edges by EAP-IG, and a long text read and continued. A rate is the number of operations
that `interp.engine.explain` foretells, over the seconds; its share is of the products of large
matrices in the same precision. The time of writing is that of reading all weights once a token: its
share is of the bytes that the machine reads. On a GPU give --device cuda --dtype bfloat16 and
--widths 2048,4096,8192.

--save writes benchmarks/results/rates-cpu.json, or rates-NAME.json with the name of the GPU, from
which `python docs/scaling.py` makes docs/scaling.md.
"""

from __future__ import annotations

import argparse
import gc
import json
import re
import tracemalloc
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from sweeps import machine, seconds
from tokenizers import Tokenizer, models

import interp
from interp.engine import Zero, everywhere, explain
from interp.engine.explain_edges import explain_attribution, explain_edges
from interp.engine.plan import Costs
from interp.engine.replay import replay_of
from interp.heads.needles.last_row import greedy, read
from interp.models import Model
from interp.prompts import PromptSet

RESULTS = Path(__file__).parent / "results"
LAYERS, HEADS, KV_HEADS, VOCAB = 4, 8, 2, 1000
TEXT, STEPS = 2048, 8


def llama(width: int, device: str, dtype: str) -> Model:
    """A model with random weights whose products are as wide as those of a larger one."""
    config = transformers.LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS,
        max_position_embeddings=2 * TEXT,
    )
    with torch.random.fork_rng(devices=[]), torch.device(device):
        torch.manual_seed(0)
        hf = transformers.LlamaForCausalLM(config).to(getattr(torch, dtype)).eval()
    words = Tokenizer(models.WordLevel({"<eos>": 0, "w": 1}, unk_token="<eos>"))
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<eos>")
    return Model(hf, tokenizer, id=f"{LAYERS} layers of width {width}")


def prompts(count: int, length: int) -> PromptSet:
    """Pairs of random tokens that differ from the first column on."""
    random = torch.Generator().manual_seed(0)
    clean = torch.randint(VOCAB, (count, length), generator=random)
    answers = torch.randint(VOCAB, (2, count, 1), generator=random)
    return PromptSet.from_tokens(clean, (clean + 1) % VOCAB, answer=answers[0], wrong=answers[1])


def products(width: int, device: str, dtype: str) -> float:
    """Operations a second of the fastest product with weights of this width."""
    rows = 2048
    a = torch.randn(rows, width, device=device, dtype=getattr(torch, dtype))
    b = torch.randn(4 * width, width, device=device, dtype=getattr(torch, dtype))
    ways: list[Callable[[], Any]] = [partial(torch.nn.functional.linear, a, b)]
    if device == "cpu" and dtype == "float32":
        ways.append(partial(torch.ops.mkldnn._linear_pointwise, a, b, None, "none", [], ""))
    return max(2 * rows * 4 * width**2 / seconds(way, device, repeats=5) for way in ways)


def bytes_read(device: str) -> float:
    """Bytes a second when a large tensor is read once: as a sum, or times a vector."""
    matrix = torch.ones(2**14, 2**14, device=device)
    vector = torch.ones(2**14, device=device)
    ways = (matrix.sum, partial(torch.mv, matrix, vector))
    return max(matrix.nbytes / seconds(way, device, repeats=5) for way in ways)


def head_sweep(model: Model, device: str) -> dict[str, float]:
    some = prompts(4, 64)
    work = partial(interp.ablate, model, some, method="zero", progress=False)
    plan = explain(model, some, everywhere(interp.sites.heads(model), Zero()))
    return {"flops": plan.flops, "seconds": seconds(work, device)}


def edge_sweep(model: Model, device: str) -> dict[str, float]:
    some = prompts(1, 16)
    work = partial(interp.engine.patch_edges, model, some, progress=False)
    return {"flops": explain_edges(model, some).flops, "seconds": seconds(work, device)}


def edge_attribution(model: Model, device: str) -> dict[str, float]:
    some = prompts(4, 64)
    work = partial(interp.attribute, model, some, method="eap-ig-inputs", progress=False)
    plan = explain_attribution(model, some)
    return {"flops": plan.flops + plan.products, "seconds": seconds(work, device)}


def reading(model: Model, device: str) -> dict[str, float]:
    tokens = prompts(1, TEXT).clean[0]
    flops = LAYERS * Costs.of(replay_of(model)).span(TEXT, 0)
    return {"flops": flops, "seconds": seconds(partial(read, model, tokens), device)}


def writing(model: Model, device: str) -> dict[str, float]:
    text = read(model, prompts(1, TEXT).clean[0])

    def write() -> None:
        list(greedy(text, 0, steps=STEPS))
        text.cut(TEXT)

    read_once = sum(p.nbytes for p in model.hf.model.layers.parameters()) + (
        model.hf.lm_head.weight.nbytes
    )
    return {"bytes": STEPS * read_once, "seconds": seconds(write, device)}


WORK = {
    "head sweep": head_sweep,
    "edge sweep": edge_sweep,
    "edge attribution": edge_attribution,
    "reading": reading,
    "writing": writing,
}


def bytes_an_edge() -> float:
    """Memory of Python that one edge in a list of all takes."""
    model = interp.load("polymath", check=False)
    tracemalloc.start()
    edges = interp.sites.edges(model)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return held / len(edges)


def measure(device: str, dtype: str, widths: list[int]) -> dict[str, Any]:
    """Everything; the machine is measured beside each work, and its best counts."""
    machine_does: dict[str, list[float]] = {"flops": [], "bytes": []}
    found: dict[int, dict[str, dict[str, float]]] = {}
    for width in widths:
        model = llama(width, device, dtype)
        found[width] = {}
        for name, work in WORK.items():
            machine_does["flops"].append(products(width, device, dtype))
            machine_does["bytes"].append(bytes_read(device))
            found[width][name] = work(model, device)
            print(f"width {width}: {name}, {found[width][name]['seconds']:.2f} s")
        del model
        gc.collect()
    peak = {unit: max(rates) for unit, rates in machine_does.items()}
    for each in (one for some in found.values() for one in some.values()):
        unit = "flops" if "flops" in each else "bytes"
        each["share"] = each[unit] / each["seconds"] / peak[unit]
    return {
        "dtype": dtype,
        "flops_a_second": peak["flops"],
        "bytes_a_second": peak["bytes"],
        "bytes_an_edge": bytes_an_edge(),
        "model": f"{LAYERS} layers, {HEADS} heads, {KV_HEADS} kv heads, MLP 4 times as wide",
        "widths": found,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--widths", default="512,1024,2048")
    parser.add_argument("--save", action="store_true")
    options = parser.parse_args()
    transformers.utils.logging.set_verbosity_error()
    name = "cpu"
    if options.device.startswith("cuda"):
        name = re.sub(r"\W+", "-", torch.cuda.get_device_name(options.device)).lower()
    widths = [int(width) for width in options.widths.split(",")]
    found = measure(options.device, options.dtype, widths)
    found = {"device": name, **machine(options.device), **found}
    print(json.dumps(found, indent=2))
    if options.save:
        if any(one["share"] > 1 for some in found["widths"].values() for one in some.values()):
            raise SystemExit("not saved: a share above 1 says that the machine was busy; run again")
        path = RESULTS / f"rates-{name}.json"
        path.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
