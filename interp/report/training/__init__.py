"""What is said of training."""
