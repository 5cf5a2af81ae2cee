"""What is said of circuits."""
