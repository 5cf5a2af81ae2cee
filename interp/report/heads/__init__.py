"""What is said of heads."""
