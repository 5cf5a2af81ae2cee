"""Every error that `interp` raises on purpose.

    InterpError
    ├── ModelError          a model cannot be found, loaded or trusted
    │   ├── UnknownModel        no such embedded name, directory or hub name
    │   ├── OutOfMemory         one step of a computation needs more memory than there is
    │   ├── UnsupportedModel    not a decoder-only language model that can be hooked
    │   └── CheckFailed         `model.check()` found a disagreement
    ├── PromptError         prompts that cannot mean what they should
    ├── TaskError           unknown task, or one that the tokenizer cannot express
    ├── SiteError           a site, hook name, role or position that does not exist
    ├── InterventionError   an intervention that cannot run, or would silently do nothing
    ├── MetricError         a metric that returns the wrong shape or NaN
    ├── CircuitError        a circuit of another model, or one that cannot be what it is asked for
    ├── VectorError         a vector of another model, or one that cannot enter as it is asked to
    ├── LensError           a lens of another model, or one that cannot be trained
    ├── ProbeError          a probe that cannot be fitted, or labels that mean nothing
    ├── FileFormatError     a file that is truncated, of another kind or of another version
    ├── RunError            a run on disk that is another's, held, damaged or cannot be written
    │   └── RunHeld             another process writes it
    ├── ClusterError        a cluster that cannot be joined, or whose workers cannot do the work
    └── TrainingError       a training run that cannot start or resume

Each message names the value, the rule and the way out in one sentence.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


class InterpError(Exception):
    """Base of every error raised on purpose by `interp`.

    `partial` is what a sweep had finished before, a SweepResult, or None.
    """

    partial: Any = None


class ModelError(InterpError):
    """A model cannot be found, loaded or trusted."""


class UnknownModel(ModelError):
    """No embedded model, directory or hub repository has this name."""


class OutOfMemory(ModelError):
    """One step of a computation needs more memory than there is; another time there may be more."""


class UnsupportedModel(ModelError):
    """The model is not a decoder-only language model that can be hooked."""


class CheckFailed(ModelError):
    """`model.check()` found that bridge, module or padding disagree."""


class PromptError(InterpError):
    """Prompts are empty, misaligned, or have an answer of several tokens."""


class TaskError(InterpError):
    """The task is unknown, or the tokenizer has too few of its words."""


class SiteError(InterpError):
    """A site, hook name, role or position does not exist in this model or prompt."""


class InterventionError(InterpError):
    """An intervention cannot run, or would silently change nothing."""


class MetricError(InterpError):
    """A metric returned the wrong shape or a value that is not a number."""


class CircuitError(InterpError):
    """A circuit is of another model, or cannot be what it is asked for."""


class VectorError(InterpError):
    """A vector is of another model, or cannot enter as it is asked to."""


class LensError(InterpError):
    """A lens is of another model, or cannot be trained."""


class ProbeError(InterpError):
    """A probe cannot be fitted, or its labels mean nothing."""


class FileFormatError(InterpError):
    """A file is truncated, of another kind, or of another version."""


class RunError(InterpError):
    """A run on disk is of another identity, is damaged, or cannot be written."""


class RunHeld(RunError):
    """Another process writes the run."""


class ClusterError(InterpError):
    """A cluster cannot be joined, or its workers cannot do the work."""


class TrainingError(InterpError):
    """A training run cannot start or resume."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of an error message: the nearest matches, else everything known.

    >>> did_you_mean("polymat", ["polymath", "induction"])
    'did you mean polymath?'
    >>> did_you_mean("xyz", ["polymath", "induction"])
    'known: induction, polymath.'
    """
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    if near:
        return f"did you mean {' or '.join(near)}?"
    return f"known: {', '.join(names)}." if names else "none are known."


def one_line(error: object) -> str:
    """What an error says, as a part of a sentence: one line that can be printed, not too long.

    >>> one_line(ValueError("no\\n  number"))
    'no number'
    >>> one_line(KeyError("nodes"))
    "'nodes'"
    """
    told = " ".join(str(error)[:2_000].split()) or type(error).__name__
    return "".join(letter if letter.isprintable() else "?" for letter in told)[:300]
