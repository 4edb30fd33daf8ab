"""`oceano plan`: memory, disk and machines for a number of faces."""

from __future__ import annotations

import json
from dataclasses import asdict

import typer

from app.core.config import Settings
from app.index.capacity import amount, faces_of
from app.index.capacity import plan as planned
from app.packs.store import embedding_size_of


def run_plan(
    settings: Settings,
    faces: str,
    *,
    replicas: int,
    node_memory_gb: float,
    embedding_size: int | None,
    as_json: bool,
) -> None:
    """Print what `faces` need (such as 6M), as text or as one JSON line. Raises OceanoError `invalid_request`."""
    made = planned(
        faces_of(faces),
        embedding_size=embedding_size or embedding_size_of(settings.model_name, settings.models_dir) or 512,
        m=settings.hnsw_m,
        replicas=replicas,
        node_memory=round(min(node_memory_gb, 1e9) * 1_000_000_000),
    )
    if as_json:
        typer.echo(json.dumps(asdict(made)))
        return
    machines = f"{made.nodes} with {amount(made.node_memory)}" if made.nodes > 1 else "1"
    shards = f"; SHARD_NUMBER={2 * made.nodes}" if made.nodes > 1 else ""
    if made.nodes > 1 and replicas == 1:
        shards += " (a lost machine takes its faces along: --replicas 2)"
    typer.echo(
        f"{made.faces:,} faces of {made.embedding_size} dimensions, HNSW_M={settings.hnsw_m}, {replicas} "
        f"cop{'y' if replicas == 1 else 'ies'}; over all machines:\n"
        f"index       {made.kind}; machines: {machines}{shards}\n"
        f"memory      at least {amount(made.memory_least)}, {amount(made.memory)} for quick searches\n"
        f"disk        {amount(made.index_disk)} for the index, {amount(made.building_disk)} more, free, while its "
        "graph is built\n"
        f"            {amount(made.thumbnails_disk)} for thumbnails, about {amount(made.ledger_disk)} for the ledger\n"
        "measured at one million faces of 512 dimensions; all else is worked out from that"
    )
