"""View model of an error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from app.core.errors import OceanoError
from app.core.texts import Translator
from app.web.i18n import error_message

_RETRY_STATUSES: Final = frozenset({429, 500, 503, 504})
_OTHER_PHOTOGRAPH: Final = frozenset({"face_not_found", "unsupported_image", "invalid_image", "image_too_large"})


@dataclass(frozen=True, slots=True)
class ErrorView:
    """An error as the page shows it.

    Attributes:
        code: of the error.
        title: of the page.
        message: a sentence.
        request_id: of the request; empty if it is not known.
        retry: a new attempt may succeed.
        links: address and text of each page that leads on.
    """

    code: str
    title: str
    message: str
    request_id: str
    retry: bool
    links: tuple[tuple[str, str], ...] = ()

    @property
    def choose(self) -> bool:
        """Whether another photograph may help."""
        return self.code in _OTHER_PHOTOGRAPH


def error_view(error: OceanoError, t: Translator, request_id: str) -> ErrorView:
    """Make the view of an error in the translator's language."""
    message = error_message(error, t.lang).strip()
    sentence = message[:1].upper() + message[1:]
    return ErrorView(
        code=error.code,
        title=t("title.purpose" if error.code == "purpose_required" else f"title.{error.status}"),
        message=sentence if sentence.endswith((".", "!", "?")) else f"{sentence}.",
        request_id="" if request_id == "-" else request_id,
        retry=error.status in _RETRY_STATUSES,
    )
