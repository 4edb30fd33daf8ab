"""The faces that `oceano search` searches for: those of photographs, and indexed ones."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from app.commands.console import counted, warn
from app.core.config import Settings
from app.core.errors import OceanoError
from app.core.protocols import Engine, FaceIndex
from app.core.types import Face, Floats, ModelPack
from app.images import DecoderPool
from app.service import Example, combine_pictures, two_decimals

_FACE: Final = re.compile(r"(?:(?P<photograph>[0-9]{1,2}):)?(?P<face>[0-9]{1,4})")
_MAX_LISTED: Final = 20


def chosen_faces(texts: Sequence[str], photographs: int) -> dict[int, int]:
    """Return the number of a face by the number of its photograph, of the values of `--face`.

    A value is `N`, or `M:N` for face N of photograph M, both from 0, as `face` of `POST /search`.

    Args:
        texts: the values.
        photographs: number of photographs; with several, a value must name one.

    Raises:
        OceanoError: `invalid_request` if a value is not possible.
    """
    chosen: dict[int, int] = {}
    for text in texts:
        found = _FACE.fullmatch(text)
        if found is None:
            raise OceanoError("invalid_request", f"--face {text}: must be a number from 0, such as 1, or 0:1")
        if found["photograph"] is None and photographs > 1:
            raise OceanoError(
                "invalid_request",
                f"--face {text}: name the photograph, too: --face 0:{text} is face {text} of the first one",
            )
        photograph = int(found["photograph"] or 0)
        if photograph >= photographs:
            raise OceanoError("invalid_request", f"--face {text}: there is no photograph {photograph}")
        if photograph in chosen:
            raise OceanoError("invalid_request", f"--face {text}: another --face is of the same photograph")
        chosen[photograph] = int(found["face"])
    return chosen


def require_readable(photographs: Iterable[Path]) -> None:
    """Refuse a photograph that cannot be read, before anything slow begins.

    Raises:
        OceanoError: `invalid_request`.
    """
    for path in photographs:
        with _told(path):
            path.open("rb").close()


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Turn errors of the file system into those of the command."""
    try:
        yield
    except OSError as failure:
        raise OceanoError("invalid_request", f"{path} cannot be read: {failure.strerror}") from failure


class QueryFaces:
    """Finds the faces of photographs, and reads those of the index.

    Args:
        settings: limits of a photograph.
        pack: the model.
        index: has the indexed faces.
        decoders: decode the photographs.
        load: returns the model; it is called for each photograph, and loads the model once.
    """

    def __init__(
        self,
        settings: Settings,
        pack: ModelPack,
        index: FaceIndex,
        decoders: DecoderPool,
        load: Callable[[], Engine],
    ) -> None:
        self._settings = settings
        self._index = index
        self._decoders = decoders
        self._load = load
        self.threshold = pack.threshold

    def of_photograph(self, path: Path) -> list[Face]:
        """Return the faces of a photograph, at least one."""
        with _told(path):
            data = path.read_bytes()
        engine = self._load()
        try:
            picture = self._decoders.decode(
                data,
                max_pixels=self._settings.max_image_pixels,
                min_decoded_side=self._settings.min_decoded_side,
                name=str(path),
            )
            faces = engine.analyze([picture])[0]
        except OceanoError as failure:
            raise OceanoError(failure.code, f"{path}: {failure.message}") from failure
        if not faces:
            raise OceanoError("face_not_found", f"no face was found in {path}")
        return faces

    def of_index(self, face_id: str) -> Floats:
        """Return the embedding of an indexed face."""
        try:
            face_id = str(uuid.UUID(face_id))
        except ValueError:
            raise OceanoError("invalid_request", f"{face_id} is neither a file nor the id of a face") from None
        for record in self._index.retrieve([face_id], with_embedding=True):
            if record.embedding is not None:
                return record.embedding
        raise OceanoError("face_unknown", f"no face with the id {face_id} is in the index")

    def of_either(self, text: str, option: str) -> Floats:
        """Return the embedding of a photograph's largest face, or that of an indexed face.

        Args:
            text: a path or a face_id.
            option: the option with this text, for messages.
        """
        path = Path(text)
        if not path.exists():
            return self.of_index(text)
        faces = self.of_photograph(path)
        examples, embedding = combine_pictures([faces], self.threshold)
        if len(faces) > 1:
            warn(f"{path} has {len(faces)} faces; {option} takes the largest, {_place(faces, examples[0].face_index)}")
        return embedding


def require_faces(photographs: Sequence[Path], pictures: Sequence[Sequence[Face]], chosen: Mapping[int, int]) -> None:
    """Refuse the number of a face that a photograph does not have.

    Raises:
        OceanoError: `invalid_request`.
    """
    for photograph, face in chosen.items():
        if face >= len(pictures[photograph]):
            count = counted(len(pictures[photograph]), "face")
            raise OceanoError(
                "invalid_request",
                f"--face: {photographs[photograph]} has {count}, numbered from 0; there is no face {face}",
            )


def say_examples(
    photographs: Sequence[Path],
    pictures: Sequence[Sequence[Face]],
    examples: Sequence[Example],
    chosen: Mapping[int, int],
) -> None:
    """Print to standard error which faces are searched if `--face` does not say, and which may be another person's.

    Args:
        photographs: their paths.
        pictures: the faces of each.
        examples: the searched face of each.
        chosen: number of the face that was chosen, by number of the photograph.
    """
    for example in examples:
        path, faces = photographs[example.picture], pictures[example.picture]
        if len(faces) > 1 and example.picture not in chosen:
            _say_faces(path, faces, example, of_several=len(photographs) > 1)
        if example.doubtful:
            warn(
                f"{path} may show another person: its similarity to the other photographs is "
                f"{two_decimals(example.similarity)}"
            )


def _say_faces(path: Path, faces: Sequence[Face], example: Example, *, of_several: bool) -> None:
    option = f"--face {example.picture}:N" if of_several else "--face N"
    warn(f"{path} has {len(faces)} faces; face {example.face_index} is searched, {option} chooses another:")
    for number in range(min(len(faces), _MAX_LISTED)):
        warn(f"  {_place(faces, number)}" + (", searched" if number == example.face_index else ""))
    if len(faces) > _MAX_LISTED:
        warn(f"  and {len(faces) - _MAX_LISTED} more")


def _place(faces: Sequence[Face], number: int) -> str:
    left, top, right, bottom = faces[number].bbox
    return f"face {number}: {right - left:.0f} x {bottom - top:.0f} pixels at {left:.0f}, {top:.0f}"
