"""What the commands of `oceano` do."""
