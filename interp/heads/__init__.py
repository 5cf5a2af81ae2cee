"""What every attention head looks at."""

from __future__ import annotations

from interp.heads.atlas import THRESHOLD, HeadAtlas
from interp.heads.attention import KINDS, MEANING, repeated_tokens
from interp.heads.scan import scan

__all__ = ["KINDS", "MEANING", "THRESHOLD", "HeadAtlas", "repeated_tokens", "scan"]
