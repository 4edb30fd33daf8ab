"""What runs: engine, index and ledger as the settings ask for them; searching; the watch over a running service."""
