"""Workers, memory and the run store: what do sweeps cost as they grow?

    python benchmarks/scale.py [--only workers,store,memory] [--save]

Workers: one sweep on one and on two of them, in this process (`Devices`) and on a Ray cluster of
this machine, each computing with one thread. The first sweep on an engine, which loads the model,
is not timed.
Store: the part of a sweep's time that passes in the methods of its run, with one thread, waiting
for the disk included; and the ratio of the same sweep with a run and without one, in turns, and in
the other order each time, of its CPU seconds and of its seconds on the wall. On a machine that is
shared the latter swings by far more than the store costs: the 95% intervals, from resampling the
turns, say by how much.
Memory: peak resident set of a fresh process after sweeps of 10,000 to 1,000,000 interventions on 4
prompts, and of 100 to 10,000 prompts with all heads, beyond that of a sweep of all heads on 4; and
how much of it is what the sweep is given, and the values themselves.
--save writes benchmarks/results/scale-cpu.json.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from sweeps import machine

RESULTS = Path(__file__).parent / "results" / "scale-cpu.json"
PARTS = ("workers", "store", "memory")
INTERVENTIONS = (10_000, 100_000, 1_000_000)
PROMPTS = (100, 1_000, 10_000)
TURNS = 30
TASK = "ioi"


def loaded(prompts: int) -> tuple[Any, Any]:
    import interp

    model = interp.load("polymath", check=False)
    task = interp.tasks.get(TASK)
    return model, task.sample(model, n=prompts, seed=0, split="all")


def workers() -> dict[str, Any]:
    """Interventions times prompts a second, on each engine; values are the same bits."""
    import torch

    from interp.engine import Mean, everywhere, run
    from interp.workers import Devices, Here, Ray

    torch.set_num_threads(1)
    model, some = loaded(64)
    made = everywhere(neurons(model, 2), Mean())
    engines: dict[str, Any] = {
        "here": Here(),
        "2 threads": Devices(["cpu", "cpu"]),
        "Ray, 1 worker": Ray(workers=1),
        "Ray, 2 workers": Ray(workers=2),
    }
    rates, values = {}, []
    for name, engine in engines.items():
        run(model, some, made[:64], engine=engine, progress=False)
        seconds = []
        for _ in range(3):
            start = time.perf_counter()
            values.append(run(model, some, made, engine=engine, progress=False).values)
            seconds.append(time.perf_counter() - start)
        rates[name] = len(made) * len(some) / statistics.median(seconds)
        if isinstance(engine, Ray):
            engine.close()
    return {
        "interventions": len(made),
        "prompts": len(some),
        "rates": rates,
        "ratios": {name: rate / rates["here"] for name, rate in rates.items()},
        "equal_bits": all(torch.equal(each, values[0]) for each in values),
    }


def store() -> dict[str, Any]:
    """How much longer a sweep takes when it is kept as it comes."""
    import numpy
    import torch

    from interp.engine import Mean, everywhere, run
    from interp.runs import Run

    torch.set_num_threads(1)
    model, some = loaded(64)
    made = everywhere(neurons(model, 2)[:160], Mean())  # short turns: a shared machine has phases
    sweep = partial(run, model, some, made, progress=False)
    sweep()
    plain, kept, sizes = [], [], []  # of each sweep, seconds on the wall and of the CPU
    spent = time_methods(Run, ("__init__", "settle", "keep", "finish", "__exit__"))
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(TURNS):
            place = Path(folder) / str(turn)
            both = [(plain, sweep), (kept, partial(sweep, run=place))]
            for seconds, swept in both if turn % 2 else both[::-1]:
                start = time.perf_counter(), time.process_time()
                swept()
                end = time.perf_counter(), time.process_time()
                seconds.append(numpy.subtract(end, start))
            sizes.append(sum(file.stat().st_size for file in place.rglob("*") if file.is_file()))
    (wall, cpu), (wall_kept, _) = numpy.transpose(plain), numpy.transpose(kept)
    ratios = numpy.divide(kept, plain)
    drawn = numpy.random.default_rng(0).choice(ratios, (10_000, TURNS))
    wall_ratio, cpu_ratio = numpy.median(ratios, axis=0)
    spans = numpy.quantile(numpy.median(drawn, axis=1), [0.025, 0.975], axis=0).T.tolist()
    return {
        "interventions": len(made),
        "prompts": len(some),
        "seconds": numpy.median(wall),
        "cpu_seconds": numpy.median(cpu),
        "share_in_the_store": sum(spent) / sum(wall_kept),
        "cpu_ratio": cpu_ratio,
        "cpu_ratio_interval": spans[1],
        "wall_ratio": wall_ratio,
        "wall_ratio_interval": spans[0],
        "turns": TURNS,
        "bytes_a_value": statistics.median(sizes) / (len(made) * len(some)),
    }


def time_methods(of: type, names: Sequence[str]) -> list[float]:
    """Seconds of every call of these methods from now on, in a list that grows."""
    spent: list[float] = []

    def timed(method: Any) -> Any:
        def call(*args: Any, **options: Any) -> Any:
            start = time.perf_counter()
            try:
                return method(*args, **options)
            finally:
                spent.append(time.perf_counter() - start)

        return call

    for name in names:
        setattr(of, name, timed(getattr(of, name)))
    return spent


def memory() -> dict[str, Any]:
    """Peak memory of sweeps that grow, each in a process of its own."""
    grown: dict[str, Any] = {"interventions": {}, "prompts": {}}
    for kind, counts in (("interventions", INTERVENTIONS), ("prompts", PROMPTS)):
        for count in counts:
            command = [sys.executable, __file__, "--peak", f"{kind}:{count}"]
            checkout = {**os.environ, "PYTHONPATH": str(RESULTS.parents[2])}
            done = subprocess.run(command, capture_output=True, text=True, env=checkout, check=True)
            grown[kind][str(count)] = json.loads(done.stdout.splitlines()[-1])
            print(kind, count, grown[kind][str(count)], flush=True)
    return grown


def peak(kind: str, count: int) -> dict[str, float]:
    """One sweep, kept in a run, and what the process held at most beyond a small one."""
    import interp
    from interp.engine import Zero, everywhere, run

    heads = everywhere(interp.sites.heads(model := interp.load("polymath", check=False)), Zero())
    task = interp.tasks.get(TASK)
    small = task.sample(model, n=4, seed=0)
    run(model, small, heads, progress=False)
    before = _peak_mb()
    some = task.sample(model, n=count, seed=0, split="all") if kind == "prompts" else small
    made = heads if kind == "prompts" else scaled_neurons(model, count)
    given = _peak_mb()
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        found = run(model, some, made, run=Path(folder) / "run", progress=False)
        seconds = time.perf_counter() - start
    return {
        "seconds": seconds,
        "peak_mb": _peak_mb() - before,
        "given_mb": given - before,
        "values_mb": found.values.nbytes / 2**20,
        "interventions": len(made),
        "prompts": len(some),
    }


def neurons(model: Any, layer: int) -> Any:
    from interp.sites import neurons as some

    return some(layer, 4 * model.geometry.d_model)


def scaled_neurons(model: Any, count: int) -> list[Any]:
    """So many different interventions: neurons of the last layer, at 8 positions, by a factor."""
    from interp.engine import Intervention, Scale

    last = neurons(model, model.geometry.n_layers - 1)
    places = [(neuron, position) for position in range(-8, 0) for neuron in last]
    made = []
    for number in range(count):
        neuron, position = places[number % len(places)]
        factor = 2.0 + number // len(places)
        made.append(Intervention.at(neuron, Scale(factor), position=position))
    return made


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default=",".join(PARTS), help="some of " + ", ".join(PARTS))
    parser.add_argument("--save", action="store_true", help=f"write {RESULTS}")
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak:
        kind, count = options.peak.split(":")
        print(json.dumps(peak(kind, int(count))))
        return
    found = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name, part in (("workers", workers), ("store", store), ("memory", memory)):
        if name in options.only.split(","):
            found[name] = part()
            print(name, json.dumps(found[name], indent=2), flush=True)
    if options.save:
        RESULTS.write_text(json.dumps({**found, "machine": machine("cpu")}, indent=2) + "\n")


if __name__ == "__main__":
    main()
