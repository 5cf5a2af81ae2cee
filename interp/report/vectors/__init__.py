"""What is said of vectors."""
