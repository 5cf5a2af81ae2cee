"""What is said of lenses and probes."""
