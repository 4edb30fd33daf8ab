"""What everything else may use: types, errors, settings, logs, locks, threads. It imports nothing else of Oceano."""
