"""`oceano plan`: estimates memory, disk space and machines for a number of faces."""

from __future__ import annotations

import json
from dataclasses import asdict

import typer

from app.core.config import Settings
from app.index.capacity import amount, faces_of
from app.index.capacity import plan as planned
from app.packs import embedding_size_of


def run_plan(
    settings: Settings,
    faces: str,
    *,
    replicas: int,
    node_memory_gb: float,
    embedding_size: int | None,
    as_json: bool,
) -> None:
    """Print an estimate.

    Args:
        settings: name the model, and have HNSW_M.
        faces: a number such as 6M.
        replicas: copies of each face.
        node_memory_gb: memory of one machine in GB.
        embedding_size: dimensions of an embedding; None for those of the model.
        as_json: print one line of JSON instead of text.

    Raises:
        OceanoError: `invalid_request` if a number is invalid or too large.
    """
    estimate = planned(
        faces_of(faces),
        embedding_size=embedding_size or embedding_size_of(settings.model_name, settings.models_dir) or 512,
        m=settings.hnsw_m,
        replicas=replicas,
        node_memory=round(min(node_memory_gb, 1e9) * 1_000_000_000),
    )
    if as_json:
        typer.echo(json.dumps(asdict(estimate)))
        return
    machines = f"{estimate.nodes} with {amount(estimate.node_memory)}" if estimate.nodes > 1 else "1"
    shards = f"; SHARD_NUMBER={2 * estimate.nodes}" if estimate.nodes > 1 else ""
    if estimate.nodes > 1 and replicas == 1:
        shards += " (if a machine is lost, so are its faces; use --replicas 2)"
    typer.echo(
        f"{estimate.faces:,} faces of {estimate.embedding_size} dimensions, HNSW_M={settings.hnsw_m}, {replicas} "
        f"cop{'y' if replicas == 1 else 'ies'}; in total:\n"
        f"index       {estimate.kind}; machines: {machines}{shards}\n"
        f"memory      at least {amount(estimate.memory_least)}, {amount(estimate.memory)} for fast searches\n"
        f"disk        {amount(estimate.index_disk)} for the index, {amount(estimate.building_disk)} more while its "
        "graph is built\n"
        f"            {amount(estimate.thumbnails_disk)} for thumbnails, about "
        f"{amount(estimate.catalog_sqlite_disk)} for the catalog "
        f"({amount(estimate.catalog_postgresql_disk)} in PostgreSQL)\n"
        "One million faces of 512 dimensions were measured; other numbers are calculated from that."
    )
