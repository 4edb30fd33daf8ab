"""What became of somebody who is not there any more, for the error of a request that is about them."""

from __future__ import annotations

from fastapi import Request

from app.core.errors import OceanoError
from app.service import GonePerson
from app.web.deps import services_of


async def told_of_gone(request: Request, failure: OceanoError) -> OceanoError:
    """Return the error for an unknown person, with the id of whom the person was merged into.

    The state of the request then has `gone`, for the page.

    Args:
        request: that failed.
        failure: `person_unknown`.
    """
    access = getattr(request.state, "access", None)
    if access is None or not access.sees_all:  # the same answer, in the same time, as for an id that nobody had
        return failure
    services = services_of(request)
    try:
        gone = await services.lookups.run(services.people.gone, str(failure.details.get("person_id", "")))
    except OceanoError:  # what is asked for is not there, whatever became of it
        return failure
    request.state.gone = gone
    if gone is None or gone.merged_into is None:
        return failure
    stays = gone.merged_into.person.id
    return OceanoError(
        failure.code,
        f"this person was merged into the person {stays}",
        details={**failure.details, "merged_into": stays},
    )


def gone_in(request: Request) -> GonePerson | None:
    """Return what became of the person that a request was about, if that is known."""
    return getattr(request.state, "gone", None)
