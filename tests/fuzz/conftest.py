"""What is no test here."""

collect_ignore = ["with_atheris.py"]  # run by hand, where atheris is installed
