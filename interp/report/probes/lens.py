"""Lenses as sections of a report: what every layer says, and which lens is nearer to the model."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd
from markupsafe import Markup, escape

from interp.lens.compare import LensComparison
from interp.lens.picture import cut, visible
from interp.lens.reading import STATISTICS, LensReading
from interp.report.drawing import svg
from interp.report.drawing.chart import Series, curves
from interp.report.drawing.theme import color_class
from interp.report.frame import frame_table
from interp.report.parts import (
    Block,
    Claim,
    Figure,
    Section,
    Table,
    Verdict,
    interval,
    listed,
    number,
    of,
    provenance_rows,
)
from interp.report.rerun import rerun, sampled

TEXTS, TOKENS = 3, 40
"""What is drawn of a reading; its tables have the statistics of all of it."""
LEFT, TOP, WIDTH, HEIGHT = 34, 26, 84, 24
ENDS = ("ci_low", "ci_high")


def reading_section(reading: LensReading, results: Sequence[object] = ()) -> Section:
    """What every layer says at every token. It claims nothing: a reading has no control."""
    known = reading.provenance
    model = str(known.get("model", "the model"))
    drawn = range(min(TEXTS, reading.n_texts))
    left = reading.n_texts - len(drawn)
    return Section(
        heading=f"What every layer of {model} says ({reading.lens} lens)",
        lead=(
            "The stream after every layer is read as if it were the last. Layer 0 is the embedding "
            "and the last layer is the model's own prediction. No verdict: a reading has no "
            "control; lens.compare holds two lenses against each other."
        ),
        claims=(),
        blocks=(*(_words(reading, text, model) for text in drawn), _statistics(reading, model)),
        limits=(
            "A layer that does not speak the language of the last one may know more than its words "
            "show.",
            *([f"Not drawn: {left} more texts."] if left else []),
        ),
        provenance=provenance_rows(known),
        command=rerun(
            known,
            *([sampled(known)] if "prompts_hash" in known else []),
            f"interp.lens.read(model, {'prompts' if 'prompts_hash' in known else 'texts'}, "
            f"{'interp.lens.logit_lens(model)' if reading.lens == 'logit' else 'lens'}"
            + (f", target={known['target']!r})" if known.get("target") else ")"),
        ),
    )


def _words(reading: LensReading, text: int, model: str) -> Block:
    """A layer x token grid: the likeliest word in each cell, coloured by its probability."""
    some = (reading.text == text).nonzero()[:, 0]
    left = max(0, len(some) - TOKENS)
    some = some[:TOKENS]
    names = [visible(reading.words[token]) for token in reading.token[some].tolist()]
    tops, probs = reading.top[:, some].tolist(), reading.top_prob[:, some].tolist()
    told = f"; {left} more tokens are not drawn" if left else ""
    return Block(
        f"Text {text + 1}",
        "Each cell has the word that the layer finds likeliest after the token above; the "
        "stronger its colour, the likelier. Point at a cell for the next words.",
        (
            Figure(
                f"{model}, text {text + 1}",
                _grid(reading, names, tops, probs),
                f"Rows are layers, columns are tokens ({len(some)}{told}).",
                svg.legend("probability 0", "1"),
                Table(
                    f"The likeliest word at every layer and token of text {text + 1}",
                    ("Layer", "Token", "Word", "Probability"),
                    tuple(
                        (layer, f"{i} {names[i]}", visible(reading.words[top[0]]), prob[0])
                        for layer, row, row_probs in zip(reading.layers, tops, probs, strict=True)
                        for i, (top, prob) in enumerate(zip(row, row_probs, strict=True))
                    ),
                    digits=3,
                ),
                role="wide",
            ),
        ),
    )


def _grid(
    reading: LensReading,
    names: Sequence[str],
    tops: Sequence[Sequence[Sequence[int]]],
    probs: Sequence[Sequence[Sequence[float]]],
) -> Markup:
    parts = [
        _text("tick", LEFT + (i + 0.5) * WIDTH, TOP - 10, cut(name)) for i, name in enumerate(names)
    ]
    for row, layer in enumerate(reading.layers):
        y = TOP + row * HEIGHT
        parts.append(_text("tick layer", LEFT - 8, y + HEIGHT / 2 + 4, str(layer)))
        for i, name in enumerate(names):
            best = [
                (visible(reading.words[token]), prob)
                for token, prob in zip(tops[row][i], probs[row][i], strict=True)
            ]
            tip = f"layer {layer}, after “{name}”: " + ", ".join(
                f"“{word}” {number(prob, digits=3)}" for word, prob in best
            )
            shade = color_class(best[0][1], 0.0, 1.0, diverging=False)
            parts.append(
                f'<rect class="{shade}" x="{LEFT + i * WIDTH}" y="{y}" width="{WIDTH - 1}" '
                f'height="{HEIGHT - 1}" rx="2" data-tip="{escape(tip)}"/>'
            )
            middle = LEFT + (i + 0.5) * WIDTH
            parts.append(_text("number", middle, y + HEIGHT / 2 + 3.5, cut(best[0][0])))
    width, height = LEFT + len(names) * WIDTH, TOP + len(reading.layers) * HEIGHT
    label = "The likeliest word at every layer and token. All words are in the table."
    return Markup(
        f'<svg class="heatmap words" role="img" aria-label="{label}" width="{width}" '
        f'height="{height}" viewBox="0 0 {width} {height}">{"".join(parts)}</svg>'
    )


def _text(kind: str, x: float | int, y: float | int, words: str) -> str:
    return f'<text class="{kind}" x="{x:g}" y="{y:g}">{escape(words)}</text>'


def _statistics(reading: LensReading, model: str) -> Block:
    frame = reading.summary()
    layers = [str(layer) for layer in reading.layers]

    def drawn(name: str, limits: tuple[float, float] | None) -> Figure:
        some = frame[frame["statistic"] == name]
        return Figure(
            f"{model}: {STATISTICS[name]}",
            curves(
                [Series.of(some, "mean", name.replace("_", " "), ends=ENDS)],
                layers,
                label=f"{STATISTICS[name]}, by layer. All values are in the table.",
                across="layer",
                limits=limits,
            ),
            f"The band is the 95% interval over texts; {of(int(some['texts'].max()))} texts.",
            data=frame_table("Every statistic at every layer", frame) if name == "kl" else None,
        )

    targets = frame.loc[frame["statistic"] == "prob", "mean"].notna().any()
    return Block(
        "By layer",
        "How far each layer is from the model's own prediction, and what it gives the token that "
        "follows. Means over texts of their means over tokens.",
        (drawn("kl", None), *([drawn("prob", (0.0, 1.0))] if targets else [])),
    )


def comparison_section(found: LensComparison, results: Sequence[object] = ()) -> Section:
    """Whether a lens is nearer to the model than the logit lens, and than its own layers mixed."""
    frame, known = found.to_frame(), found.provenance
    model = str(known.get("model", "the model"))
    name = next(each for each in found.per_text if each not in ("logit", "shuffled"))
    before = frame[frame["layer"] < frame["layer"].max()]
    n = of(int(frame["n"].max()))
    order = [name, *(each for each in found.per_text if each != name)]
    drawing = curves(
        [
            Series.of(frame[frame["lens"] == each], "mean", each, ends=ENDS, control=each != name)
            for each in order
        ],
        [str(layer) for layer in dict.fromkeys(frame["layer"])],
        label=f"{STATISTICS[found.value]} through every lens, by layer. All values are in the "
        "table.",
        across="layer",
    )
    return Section(
        heading=f"Is the {name} lens of {model} better than the logit lens?",
        lead=(
            f"{STATISTICS[found.value]}, lower is better, through the {name} lens, through the "
            "logit lens, and through the translators of other layers (“shuffled”), on texts that "
            "the lens was not trained on."
        ),
        claims=(_better(found, before, name, model, n),),
        blocks=(
            Block(
                "By layer",
                "The last layer has no translator: all lenses are the model's own output there.",
                (
                    Figure(
                        model,
                        drawing,
                        f"Bands are 95% intervals over texts; {n} texts.",
                        data=frame_table("Every layer and lens", frame),
                    ),
                ),
            ),
        ),
        limits=(
            "A lens that is nearer to the model's output may add what the layer does not know.",
            f"With {before['layer'].nunique()} layers, one may look better by chance.",
        ),
        provenance=provenance_rows(known),
        command=rerun(
            known,
            f"interp.lens.compare(model, texts, lens, value={found.value!r}, "
            f"seed={known.get('shuffle_seed')})",
        ),
    )


def _better(found: LensComparison, before: pd.DataFrame, name: str, model: str, n: str) -> Claim:
    """In every layer before the last, surely below the logit lens and below mixed translators."""
    own = before[before["lens"] == name].set_index("layer")
    mixed = before[before["lens"] == "shuffled"].set_index("layer")
    layers = len(own)
    verdict: Verdict = "found"
    if found.worse or not (own["mean"] < mixed["mean"]).all():
        verdict = "not found" if len(found.worse) == layers else "doubtful"
    means = "; ".join(
        f"{each} {number(before.loc[before['lens'] == each, 'mean'].mean())}"
        for each in found.per_text
    )
    most = own.loc[own["change"].idxmin()]
    worse = f"; not surely in {listed([str(each) for each in found.worse])}" if found.worse else ""
    return Claim(
        f"The {name} lens is nearer to the output of {model} than the logit lens in "
        f"{layers - len(found.worse)} of {layers} layers.",
        f"Means before the last layer: {means}; the largest change is "
        f"{number(most['change'], sign=True)} "
        f"({interval(most['change_low'], most['change_high'])}) in layer {most.name}{worse}; {n} "
        "texts.",
        verdict if not math.isnan(float(most["change_low"])) else "doubtful",
    )
