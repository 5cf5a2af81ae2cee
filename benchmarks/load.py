"""Time and peak memory of load, bridge and capture: interp against TransformerLens alone.

    python benchmarks/load.py [--repeats 5] [--save]

A model of GPT-2 small's shape with random weights is saved to a temporary directory. Every
measurement runs in a fresh process, import included; the least of the repeats is printed, and
written to benchmarks/results/load.json with --save. Memory is the peak resident set, in MB.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

RESULTS = Path(__file__).parent / "results" / "load.json"
PROMPTS, POSITIONS, HEADS_OUT = 8, 32, "attn.hook_z"


def interp_load(folder: str) -> None:
    import interp

    interp.load(folder, check=False)


def interp_load_and_check(folder: str) -> None:
    import interp

    interp.load(folder)


def interp_bridge(folder: str) -> None:
    import interp

    _ = interp.load(folder, check=False).bridge


def interp_capture(folder: str) -> None:
    import interp

    model = interp.load(folder, check=False)
    capture(model.bridge, model.device)


def transformer_lens_load(folder: str) -> None:
    from transformer_lens.model_bridge import TransformerBridge

    TransformerBridge.boot_transformers(folder)


def transformer_lens_capture(folder: str) -> None:
    from transformer_lens.model_bridge import TransformerBridge

    bridge = TransformerBridge.boot_transformers(folder)
    capture(bridge, bridge.cfg.device)


def capture(bridge, device) -> None:
    import torch

    tokens = torch.arange(PROMPTS * POSITIONS, device=device).view(PROMPTS, POSITIONS)
    with torch.no_grad():
        bridge.run_with_cache(tokens, names_filter=lambda name: name.endswith(HEADS_OUT))


# What is measured: interp's way, and the least that TransformerLens alone does for the same.
STAGES = {
    "load": (interp_load, transformer_lens_load),
    "load, with check": (interp_load_and_check, transformer_lens_load),
    "load + bridge": (interp_bridge, transformer_lens_load),
    "load + bridge + capture": (interp_capture, transformer_lens_capture),
}


def save_model(folder: str) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    GPT2LMHeadModel(GPT2Config()).save_pretrained(folder)
    vocab = {"<eos>": 0} | {f"w{i}": i + 1 for i in range(1000)}
    words = Tokenizer(models.WordLevel(vocab, unk_token="<eos>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, bos_token="<eos>", eos_token="<eos>", unk_token="<eos>"
    )
    tokenizer.save_pretrained(folder)


def measure(task: str, folder: str) -> dict[str, float]:
    """Seconds and peak MB of a task in a fresh process."""
    command = [sys.executable, __file__, "--task", task, "--folder", folder]
    checkout = {**os.environ, "PYTHONPATH": str(RESULTS.parents[2])}
    done = subprocess.run(command, capture_output=True, text=True, env=checkout)
    if done.returncode:
        raise SystemExit(f"{task} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def run_task(task: str, folder: str) -> None:
    start = time.perf_counter()
    globals()[task](folder)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "peak_mb": peak}))


def hardware() -> str:
    import torch

    cpu = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((line.split(": ")[1] for line in lines if line.startswith("model name")), cpu)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return f"{cpu}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, {device}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--save", action="store_true", help=f"write {RESULTS}")
    parser.add_argument("--task", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.task:
        return run_task(options.task, options.folder)

    with tempfile.TemporaryDirectory() as folder:
        save_model(folder)
        tasks = dict.fromkeys(task.__name__ for pair in STAGES.values() for task in pair)
        rounds = [
            {task: measure(task, folder) for task in tasks} for _ in range(options.repeats)
        ]  # in turn, so that whatever else the machine does falls on all alike
    found = {
        task: {key: min(round[task][key] for round in rounds) for key in ("seconds", "peak_mb")}
        for task in tasks
    }

    where = hardware()
    versions = {name: version(name) for name in ("torch", "transformers", "transformer-lens")}
    print(f"GPT-2 small's shape, float32, {PROMPTS} x {POSITIONS} tokens; {where}")
    print(", ".join(f"{name} {number}" for name, number in versions.items()))
    print(f"{'':24} {'interp':>16} {'TransformerLens':>18} {'ratio':>14}")
    rows = {}
    for stage, (ours, theirs) in STAGES.items():
        a, b = found[ours.__name__], found[theirs.__name__]
        rows[stage] = {
            "interp": a,
            "transformer_lens": b,
            "ratio_seconds": a["seconds"] / b["seconds"],
            "ratio_peak": a["peak_mb"] / b["peak_mb"],
        }
        print(
            f"{stage:24} {a['seconds']:6.2f} s {a['peak_mb']:5.0f} MB "
            f"{b['seconds']:8.2f} s {b['peak_mb']:5.0f} MB "
            f"{rows[stage]['ratio_seconds']:6.2f} {rows[stage]['ratio_peak']:6.2f}"
        )
    if options.save:
        RESULTS.parent.mkdir(exist_ok=True)
        report = {"hardware": where, "versions": versions, "repeats": options.repeats, "rows": rows}
        RESULTS.write_text(json.dumps(report, indent=2) + "\n")
        print(f"written to {RESULTS}")


if __name__ == "__main__":
    main()
