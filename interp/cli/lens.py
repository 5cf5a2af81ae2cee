"""`interp lens`: what every layer of a model would say if it were the last."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from interp.cli import complete, names
from interp.cli.options import AsJson, Device, DType, ModelName, Revision, Save, Seed

if TYPE_CHECKING:
    from interp.lens.lens import Lens
    from interp.lens.reading import LensReading
    from interp.models import Model
else:
    Lens = LensReading = Model = Any


def lens(
    model: ModelName,
    text: Annotated[
        list[str], typer.Argument(metavar="TEXT...", help=r"Texts to read; \n is a line break.")
    ],
    layers: Annotated[
        str | None,
        typer.Option(help="Such as 0,3,6: 0 is the embedding, l what leaves the l-th block."),
    ] = None,
    k: Annotated[int, typer.Option(min=1, help="Likeliest words to keep.")] = 5,
    value: Annotated[
        str,
        typer.Option(
            help=f"Told in each cell: {', '.join(names.STATISTICS)}.",
            autocompletion=complete.statistics,
        ),
    ] = "max_prob",
    target: Annotated[
        str | None, typer.Option(help="A word whose rank and prob are told; else the next one.")
    ] = None,
    tuned: Annotated[
        Path | None,
        typer.Option(
            help="Read through this tuned lens: .safetensors, or a folder of the tuned-lens "
            "package. With --train, where the new one is written."
        ),
    ] = None,
    train: Annotated[
        int | None, typer.Option(min=1, help="Train a tuned lens first, for so many steps.")
    ] = None,
    seed: Seed = 0,
    device: Device = None,
    dtype: DType = None,
    revision: Revision = None,
    as_json: AsJson = False,
    save: Save = None,
    out: Annotated[
        Path | None, typer.Option(help="Write the reading here: .json or .parquet.")
    ] = None,
    html: Annotated[
        Path | None, typer.Option(help="Write the heatmap of the first text here, as a page.")
    ] = None,
) -> None:
    """Tell what every layer would say if it were the last.

    Texts are read through the logit lens or a tuned lens; each layer gives its likeliest word.

    Examples:
    interp lens polymath "List: Mon, Tue, Wed,"
    interp lens polymath "List: Mon, Tue, Wed," --value rank --target Thu
    """
    from interp.cli import show
    from interp.cli.keep import keep
    from interp.lens.read import read
    from interp.lens.reading import known
    from interp.models import load

    known(value)
    show.say(f"Loading {model}")
    loaded = load(model, device=device, dtype=dtype, revision=revision)
    reading = read(
        loaded,
        [each.replace(r"\n", "\n") for each in text],
        _lens(loaded, tuned, train, seed),
        k=k,
        layers=None if layers is None else read_layers(layers),
        target=target,
    )
    given = {"layers": layers, "target": target, "tuned": tuned, "train": train}
    told = "".join(f" --{x} {shlex.quote(str(y))}" for x, y in given.items() if y is not None)
    command = f"interp lens {shlex.join([model, *text])}{told} --k {k} --seed {seed}"
    reading = replace(reading, provenance=reading.provenance | {"command": command})
    if out is not None:
        reading.save(out)
        show.wrote(out)
    keep(save, reading=reading)
    if html is not None:
        html.parent.mkdir(parents=True, exist_ok=True)
        reading.plot(value).write_html(html, include_plotlyjs=True)
        show.wrote(html)
    if as_json:
        show.print_json(
            {
                "tokens": reading.to_frame().to_dict("records"),
                "summary": reading.summary().to_dict("records"),
                "provenance": reading.provenance,
            }
        )
        return
    for index in range(reading.n_texts):
        _print(reading, index, value)


def read_layers(text: str) -> list[int]:
    """Numbers of layers. Raises LensError for anything else."""
    from interp.errors import LensError

    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise LensError(f"{text!r} names no layers; give numbers such as 0,3,6.")
    return [int(part) for part in parts]


def _lens(model: Model, path: Path | None, steps: int | None, seed: int) -> Lens | None:
    """The tuned lens that is asked for; None for the logit lens."""
    from interp.cli import show
    from interp.lens.lens_file import load_lens, save_lens
    from interp.lens.published import load_published
    from interp.lens.tuned import tuned_lens

    if steps is not None:
        made = tuned_lens(model, steps=steps, seed=seed)
        if path is not None:
            save_lens(made, path)
            show.wrote(path)
        return made
    if path is None:
        return None
    return load_published(path, model) if path.is_dir() else load_lens(path)


def _print(reading: LensReading, text: int, value: str) -> None:
    """One row a token, one column a layer: the likeliest word, and a number beside it."""
    from interp.cli import show

    words = reading.table(text)
    numbers = reading.values[value][:, reading.text == text]
    rows = [
        (str(at), token, *(_cell(*each) for each in zip(said, column, strict=True)))
        for at, (token, said, column) in enumerate(
            zip(words.columns, words.T.to_numpy().tolist(), numbers.T.tolist(), strict=True)
        )
    ]
    columns = ("at", "token", *(f"layer {layer}" for layer in reading.layers))
    show.table(columns, rows, title=f"{reading}, text {text}: likeliest word, {value}")


def _cell(word: str, number: float) -> str:
    return word if number != number else f"{word} {number:.3g}"
