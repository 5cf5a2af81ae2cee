"""Time of a head atlas, and of its three pattern detectors against TransformerLens's own.

    python benchmarks/atlas.py [--save]

Three parts: `interp.heads.scan` with and without the causal checks on `polymath`; the same on a
model of GPT-2 small's shape with random weights, which writes with polymath's tokenizer; and
`transformer_lens.head_detector.detect_head` beside `interp.heads.pattern_match` for the three kinds
that it has, on the same texts in the same process: the largest difference of the scores, and the
ratio of the times. Long contexts have a script of their own, `benchmarks/retrieval.py`. --save
writes benchmarks/results/atlas-cpu.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results" / "atlas-cpu.json"
TEXTS, WORDS = 16, 64


def gpt2_shape() -> Any:
    import torch
    import transformers

    import interp
    from interp.models import Model

    tokenizer = interp.load("polymath", check=False).tokenizer
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        hf = transformers.GPT2LMHeadModel(transformers.GPT2Config())
    return Model(hf.eval(), tokenizer, id="GPT-2 small's shape")


def timed(function: Any) -> tuple[float, Any]:
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result


def scan_polymath() -> dict[str, Any]:
    import interp

    model = interp.load("polymath")
    scored, _ = timed(lambda: interp.heads.scan(model, check=False, progress=False))
    checked, atlas = timed(lambda: interp.heads.scan(model, progress=False))
    return {
        "kinds": len(atlas.kinds),
        "claims": len(atlas.claims),
        "seconds_without_checks": scored,
        "seconds": checked,
    }


def scan_gpt2_shape() -> dict[str, Any]:
    import interp
    from interp.heads.scan_work import DETECTORS

    model = gpt2_shape()
    seconds = {}
    for kinds in DETECTORS:
        try:
            took, _ = timed(
                lambda kinds=kinds: interp.heads.scan(model, kinds, check=False, progress=False)
            )
        except interp.errors.MetricError as error:  # random weights retrieve nothing
            seconds[", ".join(kinds)] = str(error)
            continue
        seconds[", ".join(kinds)] = took
    return {
        "seconds": sum(each for each in seconds.values() if isinstance(each, float)),
        "by_detector": seconds,
    }


def against_transformer_lens() -> dict[str, Any]:
    import torch
    from transformer_lens.head_detector import detect_head

    import interp
    from interp.heads.induction.pattern_match import PATTERNS

    model = gpt2_shape()
    random = torch.Generator().manual_seed(0)
    words = [word for word in model.tokenizer.get_vocab() if word.isalpha()]
    texts = [
        " ".join(words[i] for i in torch.randint(40, (WORDS,), generator=random).tolist())
        for _ in range(TEXTS)
    ]
    bridge = model.bridge
    detect_head(bridge, texts[0], PATTERNS[0])
    interp.heads.pattern_match(model, texts[:1], PATTERNS[0], progress=False)
    theirs, expected = timed(
        lambda: [[detect_head(bridge, text, name) for text in texts] for name in PATTERNS]
    )
    ours, found = timed(
        lambda: [
            interp.heads.pattern_match(model, texts, name, progress=False) for name in PATTERNS
        ]
    )
    errors = [
        (match.values[..., i].float() - grid.cpu().float()).abs().max().item()
        for match, grids in zip(found, expected, strict=True)
        for i, grid in enumerate(grids)
    ]
    return {
        "kinds": list(PATTERNS),
        "texts": TEXTS,
        "words": WORDS,
        "seconds_transformer_lens": theirs,
        "seconds_interp": ours,
        "times_faster": theirs / ours,
        "largest_difference": max(errors),
    }


def hardware() -> str:
    import torch

    lines = Path("/proc/cpuinfo").read_text().splitlines()
    named = (line.split(": ")[1] for line in lines if line.startswith("model name"))
    cpu = next(named, platform.machine())
    return f"{cpu}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--save", action="store_true", help=f"write {RESULTS}")
    options = parser.parse_args()
    found: dict[str, Any] = {
        "hardware": hardware(),
        "versions": {name: version(name) for name in ("torch", "transformers", "transformer-lens")},
    }
    for part in (scan_polymath, scan_gpt2_shape, against_transformer_lens):
        found[part.__name__] = part()
        print(part.__name__, json.dumps(found[part.__name__], indent=2))
    if options.save:
        RESULTS.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
