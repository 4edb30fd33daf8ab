"""The commands of queued ingests: their options."""

from __future__ import annotations

from typing import Annotated

import typer

from app.commands.process import interruptible, open_settings

jobs = typer.Typer(help="Ingests: list, show, stop, resume.", no_args_is_help=True, rich_markup_mode=None)
workers = typer.Typer()  # its commands become those of `oceano` itself


def _not_empty(job_id: str) -> str:
    """An empty id would be the beginning of any; it is what a shell makes of a variable that is not set."""
    if not job_id:
        raise typer.BadParameter("the id is empty; see `oceano jobs list`")
    return job_id


_JobId = Annotated[str, typer.Argument(metavar="ID", help="The job's id, or the beginning of it.", callback=_not_empty)]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@jobs.command("list")
def list_jobs(as_json: _Json = False) -> int:
    """List the newest 50 ingests; with --json, as an array."""
    from app.commands.jobs import run_list

    return run_list(open_settings("jobs"), as_json=as_json)


@jobs.command("show")
def show_job(job_id: _JobId, as_json: _Json = False) -> int:
    """Show an ingest: how far it is, and the files that failed."""
    from app.commands.jobs import run_show

    return run_show(open_settings("jobs"), job_id, as_json=as_json)


@jobs.command("stop")
def stop_job(job_id: _JobId) -> int:
    """Stop an ingest after the current files; `oceano jobs resume` continues it."""
    from app.commands.jobs import run_stop

    return run_stop(open_settings("jobs"), job_id)


@jobs.command("resume")
def resume_job(job_id: _JobId) -> int:
    """Queue an ingest again that was interrupted or failed."""
    from app.commands.jobs import run_resume

    return run_resume(open_settings("jobs"), job_id)


@workers.command()
def worker(
    once: Annotated[bool, typer.Option("--once", help="End when there is no ingest for this machine.")] = False,
) -> int:
    """Work on queued ingests. Several workers at once need the catalog in PostgreSQL (CATALOG_URL)."""
    from app.commands.worker import run_worker

    with interruptible() as stop:
        return run_worker(open_settings("worker"), stop, once=once)
