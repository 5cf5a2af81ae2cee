"""`python -m interp` is the same as `interp` in the shell."""

from interp.cli import app

app()
