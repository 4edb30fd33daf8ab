"""Which files are known: scanning folders, reading, batches, the ledger, pruning. `app.ingest` puts it together."""
