"""`interp vectors`: vectors of tasks and behaviors, and what a model writes with one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from interp.cli import complete
from interp.cli.command import Command
from interp.cli.options import AsJson, Device, DType, ModelName, Revision, Save, Seed

if TYPE_CHECKING:
    from interp.models import Model
    from interp.vectors.vector import Vector
else:
    Model = Vector = Any


class MakeByDefault(TyperGroup):
    """Reads `interp vectors MODEL ...` as `interp vectors make MODEL ...`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in {*self.commands, *ctx.help_option_names}:
            args = ["make", *args]
        return super().parse_args(ctx, args)

    def shell_complete(self, ctx: Any, incomplete: str) -> Any:
        return [
            *super().shell_complete(ctx, incomplete),
            *self.commands["make"].params[0].shell_complete(ctx, incomplete),  # a MODEL
        ]


vectors = typer.Typer(
    cls=MakeByDefault,
    no_args_is_help=True,
    help="Find the vector of a task or a behavior, and write with it.\n\n"
    "`interp vectors MODEL ...` is `interp vectors make MODEL ...`.",
    epilog="Begin with: interp vectors polymath --task antonym --out v.safetensors",
)


@vectors.command(cls=Command)
def make(
    model: ModelName,
    task: Annotated[
        str,
        typer.Option(
            help='A relation such as antonym, or a JSON file of {"input", "output"}; to steer, '
            'also a task, or JSON lines of {"prompt", "positive", "negative"}.',
            autocompletion=complete.tasks,
        ),
    ],
    method: Annotated[
        str,
        typer.Option(
            help="task (Hendel), function (Todd), learned, or steering.",
            autocompletion=complete.vector_methods,
        ),
    ] = "task",
    against: Annotated[
        str | None,
        typer.Option(
            help="Another relation of the same inputs: what to steer away from, or what misleading "
            "demonstrations show (function; by default the task's own with answers shuffled).",
            autocompletion=complete.tasks,
        ),
    ] = None,
    layer: Annotated[
        int | None, typer.Option(help="Where it enters; chosen on tuning queries by default.")
    ] = None,
    shots: Annotated[
        int | None, typer.Option(min=1, help="Demonstrations; as published by default.")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Of Adam (learned).")] = None,
    n: Annotated[int, typer.Option(min=2, help="Prompts that it is judged on.")] = 50,
    seed: Seed = 0,
    device: Device = None,
    dtype: DType = None,
    revision: Revision = None,
    as_json: AsJson = False,
    save: Save = None,
    out: Annotated[Path | None, typer.Option(help="Write the vector here: .safetensors.")] = None,
) -> None:
    """Find the vector of a task, and judge it beside its controls.

    It is judged on queries that it has not seen.

    Examples:
    interp vectors polymath --task antonym --out v.safetensors
    interp vectors polymath --task antonym --method function --against comparative
    """
    from interp.cli import show
    from interp.cli.keep import keep
    from interp.models import load

    show.say(f"Loading {model}")
    loaded = load(model, device=device, dtype=dtype, revision=revision)
    show.say(f"Finding the {method} vector of {task}")
    given = {"shots": shots, "against": against, "layer": layer, "steps": steps}
    options = {name: value for name, value in given.items() if value is not None}
    vector, made, judged = find_vector(loaded, task, method, n, seed, options)
    told = "".join(f" --{name} {value}" for name, value in options.items())
    command = f"interp vectors {model} --task {task} --method {method}{told} --n {n} --seed {seed}"
    vector = _with(vector, command)
    if out is not None:
        vector.save(out)
        show.wrote(out)
    keep(save, vector=vector, found=_with(made, command), judged=_with(judged, command))
    frame = judged.to_frame()
    if as_json:
        show.print_json(
            {
                "kind": vector.kind,
                "layers": sorted(vector.layers),
                "operation": vector.operation,
                "position": vector.position,
                "scale": vector.scale,
                "judged": frame.to_dict("records"),
                "provenance": vector.provenance,
            }
        )
    else:
        rows = [[_cell(value) for value in row] for row in frame.itertuples(index=False)]
        show.table(list(frame.columns), rows, title=repr(judged))


def find_vector(
    model: Model, task: str, method: str, n: int, seed: int, options: dict[str, Any]
) -> tuple[Vector, Any, Any]:
    """The vector, the result that it comes from, and that of judging it beside its controls.

    Raises VectorError for an unknown method, and for an option that it does not take.
    """
    from interp.errors import VectorError, did_you_mean

    takes = {
        "task": ("shots", "layer"),
        "function": ("shots", "layer", "against"),
        "learned": ("shots", "steps"),
        "steering": ("layer", "against"),
    }
    if method not in takes:
        raise VectorError(f"No method is called {method!r}: {did_you_mean(method, takes)}")
    for name in options.keys() - takes[method]:
        others = ", ".join(other for other, taken in takes.items() if name in taken)
        raise VectorError(f"--{name} means nothing to the method {method!r}; it is for {others}.")
    by = {"task": _task, "function": _function, "learned": _learned, "steering": _steering}
    return by[method](model, task, n, seed, options)


def _task(model: Model, task: str, n: int, seed: int, options: dict[str, Any]) -> Any:
    from interp.vectors.task_vectors.task_vector import task_vector

    made = task_vector(model, task, seed=seed, **options)
    judged = made.evaluate(model, n=n, seed=seed)
    return made.vector, made, judged


def _function(model: Model, task: str, n: int, seed: int, options: dict[str, Any]) -> Any:
    from interp.vectors.function_vectors.function_vector import function_vector
    from interp.vectors.function_vectors.injection import inject

    layer, other = options.pop("layer", None), options.pop("against", None)
    made = function_vector(model, task, other=other, seed=seed, **options)
    judged = inject(model, made, layer=layer, n=n, seed=seed)
    return made.vector(judged.layer), made, judged


def _learned(model: Model, task: str, n: int, seed: int, options: dict[str, Any]) -> Any:
    from interp.vectors.learned.learn import learn_vector

    made = learn_vector(model, task, seed=seed, **options)
    judged = made.evaluate(model, n=n)
    return made.vector, made, judged


def _steering(model: Model, task: str, n: int, seed: int, options: dict[str, Any]) -> Any:
    from interp.vectors.steering.contrasts import between_relations, from_task, read_contrasts
    from interp.vectors.steering.steering import steering_vector
    from interp.vectors.steering.strengths import strength_sweep

    if "against" in options:
        behavior = between_relations(model, task, options["against"], seed=seed)
    elif Path(task).exists():
        behavior = read_contrasts(task, seed=seed)
    else:
        behavior = from_task(model, task, n=n, seed=seed)
    made = steering_vector(model, behavior, layer=options.get("layer"), seed=seed)
    judged = strength_sweep(model, made, seed=seed)
    return made.vector, made, judged


@vectors.command(cls=Command)
def apply(
    model: ModelName,
    file: Annotated[Path, typer.Argument(metavar="VECTOR", help="What --out wrote.")],
    prompt: Annotated[
        list[str],
        typer.Argument(metavar="PROMPT...", help=r"Texts to continue; \n is a line break."),
    ],
    scale: Annotated[
        float, typer.Option(help="Multiplier of a vector that is added; below 0: the opposite.")
    ] = 1.0,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Most tokens to write.")] = 20,
    temperature: Annotated[float, typer.Option(min=0, help="0 takes the most likely token.")] = 0.0,
    paths: Annotated[int, typer.Option(min=1, help="Texts to write from each prompt.")] = 1,
    seed: Seed = 0,
    device: Device = None,
    dtype: DType = None,
    revision: Revision = None,
    as_json: AsJson = False,
) -> None:
    """Continue texts with a vector in the model, and without it.

    It enters at the last token of the prompt; a steering vector at all that is written too. Both
    columns are drawn with the same random numbers.

    Examples:
    interp vectors apply polymath v.safetensors "Q: hot\\nA:"
    interp vectors apply polymath function.safetensors "Q: hot\\nA:" --scale -2 --json
    """
    from interp.cli import show
    from interp.generation import generate
    from interp.models import load
    from interp.vectors.vector import Vector

    vector, texts = Vector.load(file), [text.replace(r"\n", "\n") for text in prompt]
    if scale != 1:
        vector = vector.scaled(scale)
    show.say(f"Loading {model}")
    loaded = load(model, device=device, dtype=dtype, revision=revision)
    options: dict[str, Any] = {"n": paths, "max_new_tokens": max_new_tokens, "seed": seed}
    options["temperature"] = temperature
    steered = vector.generate(loaded, texts, **options)
    plain = generate(loaded, texts, **options)
    rows = [
        {"prompt": texts[i // paths], "path": i % paths, "without": plain.texts[i], "with": text}
        for i, text in enumerate(steered.texts)
    ]
    if as_json:
        made = vector.provenance
        show.print_json({"texts": rows, "vector": made, "provenance": steered.provenance})
        return
    columns = ("prompt", "without", "with")
    shown = [[str(row[column]).replace("\n", r"\n") for column in columns] for row in rows]
    show.table(("prompt", "without", "with the vector"), shown, title=str(vector))


def _with(result: Any, command: str) -> Any:
    """The result, which says what command makes it again."""
    return replace(result, provenance=result.provenance | {"command": command})


def _cell(value: Any) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value)
