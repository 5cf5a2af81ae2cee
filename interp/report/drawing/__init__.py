"""Pictures as SVG, and their colours."""
