"""What may be said of a difference: the one rule by which these sections judge."""

from __future__ import annotations

from interp.report.parts import Verdict


def judged(mean: float, low: float) -> Verdict:
    """Of a gain over a control and the low end of its interval.

    "found" if all of the interval is above 0, "not found" if not even the mean is; a gain without
    an interval (NaN) is doubtful.

    >>> judged(0.3, 0.1), judged(0.3, -0.1), judged(-0.1, -0.2)
    ('found', 'doubtful', 'not found')
    """
    if low > 0:
        return "found"
    return "not found" if mean <= 0 else "doubtful"


def beyond(value: float, low: float, *controls: float) -> Verdict:
    """Of a value with the low end of its interval, beside the values of its controls.

    >>> beyond(0.9, 0.8, 0.5, 0.6), beyond(0.9, 0.55, 0.5, 0.6), beyond(0.4, 0.3, 0.5, 0.6)
    ('found', 'doubtful', 'not found')
    """
    most = max(controls)
    return judged(value - most, low - most)
