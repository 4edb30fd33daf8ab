"""The commands of `oceano`, one module each."""
