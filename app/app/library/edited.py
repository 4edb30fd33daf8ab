"""Images that files became which had another image before, with the same faces: their metadata was edited."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from app.catalog import FileRecord, Ledger
from app.core.boxes import overlap
from app.core.protocols import FaceIndex
from app.core.types import FacePoint, FaceRecord, face_ids_of
from app.images import EditedImage

_SAME_BOX: Final = 0.8  # overlap of a face's boxes in two versions of a picture
_SAME_FACE: Final = 0.9  # cosine similarity of its embeddings


def edited_images(
    records: Sequence[FileRecord], points: Sequence[FacePoint], ledger: Ledger, index: FaceIndex, digest: str
) -> list[EditedImage]:
    """Return the images of files that had another image before with faces at the same places that look the same.

    Args:
        records: results of files that are not in the ledger yet.
        points: the faces of their images.
        ledger: has the earlier results.
        index: has the faces of the earlier images.
        digest: of the model pack.

    Raises:
        OceanoError: `ledger_unavailable`, `index_unavailable`.
    """
    done = {record.path: record for record in records if record.status == "done"}
    earlier = {
        path: record
        for path, record in ledger.files_at([*done]).items()
        if record.status in ("done", "duplicate") and record.image_id not in (None, done[path].image_id)
    }
    if not earlier:
        return []
    originals = ledger.originals([str(one.image_id) for one in earlier.values()])
    faces = {image_id: record.faces for image_id, record in originals.items()}
    found = []
    for path, record in earlier.items():
        before, after = str(record.image_id), str(done[path].image_id)
        ids = face_ids_of(before, digest, faces.get(before, 0))
        old = index.retrieve(ids, with_embedding=True)
        new = [point for point in points if point.payload.image_id == after]
        if same := [one for one in old if any(_is_same(one, point) for point in new)]:
            kept = tuple((one.payload.page, one.payload.bbox) for one in same)
            is_gone = all(other == path for other in ledger.paths_of(before))
            found.append(EditedImage(before, after, kept, is_gone))
    return found


def _is_same(old: FaceRecord, new: FacePoint) -> bool:
    one, other = old.payload, new.payload
    if (one.page, one.width, one.height) != (other.page, other.width, other.height) or old.embedding is None:
        return False
    return overlap(one.bbox, other.bbox) >= _SAME_BOX and float(old.embedding @ new.embedding) >= _SAME_FACE
