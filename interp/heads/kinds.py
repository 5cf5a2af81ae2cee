"""Which kinds of head there are, what their scores mean, and what they are said to do."""

from __future__ import annotations

from dataclasses import dataclass

from interp.errors import MetricError, did_you_mean


@dataclass(frozen=True)
class Kind:
    """A kind of head.

    Attributes:
        name: As scores and claims are labelled.
        meaning: What the score is, in words that follow "the score is".
        threshold: A head is named after the kind from this score on.
        source: Who described it.
        survey: Its name in the survey of attention heads (Zheng et al. 2024); "" if it has none.
        task: What the kind is said to serve: a task that should suffer without its heads; "" for
            kinds that are a place to look at, of which nothing follows.
        helps: Whether the heads are said to help that task, or, if False, to work against it.
    """

    name: str
    meaning: str
    threshold: float
    source: str
    survey: str = ""
    task: str = ""
    helps: bool = True


_ALL = (
    Kind(
        "previous-token",
        "attention from each token to the token just before it",
        0.4,
        "Elhage et al. 2021",
        "previous head",
        "repeated_tokens",
    ),
    Kind(
        "duplicate-token",
        "attention from each repeated token to its earlier copy",
        0.4,
        "Wang et al. 2022",
        "duplicate head",
        "ioi",
    ),
    Kind(
        "induction",
        "attention from each repeated token to the token that followed its earlier copy",
        0.4,
        "Olsson et al. 2022",
        "induction head",
        "repeated_tokens",
    ),
    Kind("current-token", "attention from each token to itself", 0.4, "Elhage et al. 2021"),
    Kind(
        "first-token",
        "attention to the very first position, where heads often rest when idle",
        0.4,
        "Xiao et al. 2023",
    ),
    Kind(
        "prefix-matching",
        "attention from each token to those that followed its earlier occurrences",
        0.4,
        "Olsson et al. 2022",
        "induction head",
        "repeated_tokens",
    ),
    Kind(
        "copying",
        "how much the head raises the logit of what it attends to, among the tokens of the "
        "context, from -1 to 1",
        0.5,
        "Olsson et al. 2022",
    ),
    Kind(
        "successor",
        "share of words of ordered series for which the head, by its weights alone, says the next "
        "one rather than another of the series",
        0.5,
        "Gould et al. 2023",
        "successor head",
        "succession",
    ),
    Kind(
        "retrieval",
        "share of a needle that the head looked at in the moment when the model wrote it down",
        0.1,
        "Wu et al. 2024",
        "retrieval head",
        "retrieval",
    ),
    Kind(
        "name-copying",
        "share of names that the head, by its weights alone, raises to its five largest logits",
        0.5,
        "Wang et al. 2022",
        "letter mover head",
    ),
    Kind(
        "name-suppressing",
        "share of names that the head, by its weights alone, lowers to its five smallest logits",
        0.5,
        "Wang et al. 2022",
        "negative name mover head",
    ),
    Kind(
        "name-mover",
        "attention from the end of the prompt to the indirect object, where the head raises it",
        0.3,
        "Wang et al. 2022",
        "name mover head",
        "ioi",
    ),
    Kind(
        "copy-suppression",
        "attention to tokens that the model is about to say, where the head lowers them",
        0.3,
        "McDougall et al. 2023",
        "negative name mover head",
        "ioi",
        helps=False,
    ),
    Kind(
        "s-inhibition",
        "attention from the end of the prompt to the second mention of the subject",
        0.3,
        "Wang et al. 2022",
        "inhibition head",
        "ioi",
    ),
    Kind(
        "function-vector",
        "how much of the answer to an in-context function comes back when the head's mean output "
        "is put into prompts with shuffled labels; 1 is all of it",
        0.1,
        "Todd et al. 2024",
        "function vector head",
        "functions",
    ),
)

KINDS: dict[str, Kind] = {kind.name: kind for kind in _ALL}
"""Every kind of head, by its name."""


def kind_of(name: str) -> Kind:
    """The kind of this name. Raises MetricError if there is none.

    >>> kind_of("induction").threshold
    0.4
    """
    if name not in KINDS:
        raise MetricError(f"{name!r} is not a kind of head: {did_you_mean(name, KINDS)}")
    return KINDS[name]
