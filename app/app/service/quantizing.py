"""Quantizes the recogniser of a pack with faces of the user's own photographs."""

from __future__ import annotations

import heapq
import logging
import random
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Final

from app.core.concurrency import processors
from app.core.config import Settings
from app.core.errors import OceanoError
from app.core.paths import readable
from app.core.types import File, ModelPack, Pixels
from app.images import DecoderPool, image_id_of
from app.ingest import DECODE_SECONDS
from app.library import Folder, contents

if TYPE_CHECKING:  # slow to import, and only the command needs them
    from app.embeddings import FaceEngine
    from app.engine import Quantized

_log = logging.getLogger(__name__)

MOST_FACES: Final = 500


def quantize_model(
    settings: Settings, name: str, folder: Path, limit: int, step: Callable[[str], object] = lambda _: None
) -> tuple[ModelPack, Quantized]:
    """Find faces in photographs, quantize the pack's recogniser with them, and put the result beside the pack.

    Args:
        settings: name the folders, the device and how faces are found.
        name: name of a pack, or path of a folder that contains one.
        folder: a folder of photographs, or one file.
        limit: largest number of photographs to read; they are drawn from the whole folder.
        step: called with the name of each step that begins.

    Returns:
        The pack in int8, and how close it is to fp32.

    Raises:
        OceanoError: `face_not_found` if there are too few faces; `quantization_failed` if the result is not accurate,
            or another process quantizes this pack; `folder_unavailable`, `model_not_found`, `model_corrupt`,
            `disk_full`.
    """
    from app.engine import quantize
    from app.packs import find_pack, keep_quantized, quantizing

    source = Folder(folder)
    plain = find_pack(name, settings.models_dir)
    with quantizing(plain, settings.models_dir) as work:
        step(f"looking for faces in {readable(source.path)}")
        crops = _crops(plain, settings, source, limit)
        step(f"{len(crops)} faces found")
        result = quantize(plain.recogniser, crops, work.target, step=step)
        return keep_quantized(work, asdict(result)), result


def _crops(pack: ModelPack, settings: Settings, source: Folder, limit: int) -> list[Pixels]:
    """Aligned crops of the faces in photographs of the whole folder, in a random but fixed order."""
    from app.embeddings import FaceEngine

    plain = {"precision": "fp32", "device": "cpu", "runtime": "onnxruntime"}
    engine = FaceEngine(pack, settings.model_copy(update=plain), many=True)
    chance = random.Random(0)  # noqa: S311 - no secret
    crops: list[Pixels] = []
    seen: set[str] = set()
    with closing(DecoderPool(processors(), seconds=DECODE_SECONDS)) as decoders:
        for file in heapq.nlargest(limit, source.scan(), key=lambda _: chance.random()):
            crops += _crops_of(file, engine, decoders, settings, source, seen)
            if len(crops) >= MOST_FACES:
                break
    source.require()  # files of a drive that was disconnected were skipped as unreadable
    return crops[:MOST_FACES]


def _crops_of(
    file: File, engine: FaceEngine, decoders: DecoderPool, settings: Settings, source: Folder, seen: set[str]
) -> list[Pixels]:
    """Crops of one photograph; none if it cannot be read, or is a copy of one that was."""
    try:
        data = contents(file)
        if data is None or (image_id := image_id_of(data)) in seen:
            return []
        seen.add(image_id)
        picture = decoders.decode(
            data,
            image_id=image_id,
            max_pixels=settings.max_image_pixels,
            min_decoded_side=settings.min_decoded_side,
            name=readable(file.path),
        )
        return engine.crops([picture])
    except OSError as failure:
        source.require(failure)
        _log.warning("%s is skipped: %s", readable(file.path), failure)
    except OceanoError as failure:
        _log.warning("%s is skipped: %s", readable(file.path), failure)
    return []
