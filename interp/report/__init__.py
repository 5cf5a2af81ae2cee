"""Results as one HTML file that opens anywhere, with no network."""

from __future__ import annotations

from interp.report.page import Report, build

__all__ = ["Report", "build"]
