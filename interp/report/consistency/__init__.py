"""What is said of the consistency of answers."""
