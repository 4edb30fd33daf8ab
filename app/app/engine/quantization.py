"""Quantizes a recogniser to int8, calibrated with crops of real faces.

Convolutions after the first one are quantized, with or without depthwise ones: SFace needs those in floats (median
cosine 0.991 instead of 0.970), a MobileFaceNet with clipped activations does not (0.962 instead of 0.985). So both are
tried, each with two calibrations. Weights have 7 bits, because products of 8 bits overflow the 16 bits in which
processors without VNNI add them up (0.884). A graph without convolutions has its matrix products quantized.
"""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal

import numpy as np
import onnxruntime

from app.core.errors import OceanoError
from app.core.onnx_graph import Graph, describe
from app.core.types import Floats, Pixels
from app.engine.frames import blob_of
from app.engine.graph_optimizations import rewrite
from app.engine.network import Network
from app.engine.placement import Placement, place

_log = logging.getLogger(__name__)

Calibration = Literal["MinMax", "Percentile"]

LEAST_FACES: Final = 24
LEAST_COSINE: Final = 0.97  # median on the faces that were not used for calibration
_CHECKED: Final = 4  # one in this many faces is not used for calibration
CALIBRATED: Final[Mapping[Calibration, int]] = MappingProxyType({"MinMax": 400, "Percentile": 64})  # faces at most
_AT_ONCE: Final = 8  # faces whose activations are in memory
_OPSET: Final = 17  # what older graphs become; 13 is the first with scales for each channel
_LEAST_OPSET: Final = 13
_ABSORBED: Final = ("Relu", "Clip")  # computed by the quantization of the convolution before them


@dataclass(frozen=True, slots=True)
class Quantized:
    """How a recogniser was quantized.

    Attributes:
        calibration: how the ranges of the activations were found.
        depthwise: whether depthwise convolutions are quantized, too.
        calibrated: number of faces that were used for it.
        checked: number of other faces, whose embeddings were compared with those in fp32.
        lowest: the lowest cosine of them.
        median: the median cosine.
    """

    calibration: Calibration
    depthwise: bool
    calibrated: int
    checked: int
    lowest: float
    median: float


def quantize(
    model: Path,
    crops: Sequence[Pixels],
    target: Path,
    *,
    calibrated: Mapping[Calibration, int] = CALIBRATED,
    least: float = LEAST_COSINE,
    step: Callable[[str], object] = lambda _: None,
) -> Quantized:
    """Quantize a recogniser: several ways are tried, and the one is kept whose embeddings are closest to fp32.

    Args:
        model: the ONNX file.
        crops: aligned crops of different faces, of the model's input size, BGR, uint8; at least `LEAST_FACES`.
        target: the file to write.
        calibrated: calibrations to try, and how many faces each gets at most; histograms of percentiles take long.
        least: the lowest median cosine that is accepted.
        step: called with the name of each step that begins.

    Returns:
        How it was quantized, and how close it is to fp32.

    Raises:
        OceanoError: `face_not_found` if there are too few crops; `quantization_failed` if the embeddings differ too
            much from those in fp32, or the graph cannot be quantized; `model_corrupt`, `disk_full`.
        OSError: the target cannot be written.
    """
    if len(crops) < LEAST_FACES:
        raise _too_few(len(crops))
    with tempfile.TemporaryDirectory(prefix=".quantize-", dir=target.parent) as name:
        try:
            results = list(_attempts(model, crops, Path(name), calibrated, step))
        except (OceanoError, OSError):
            raise
        except Exception as failure:  # the exceptions of onnx and ONNX Runtime have no common base but Exception
            raise OceanoError("quantization_failed", f"{model.name} cannot be quantized: {failure}") from failure
        best, file = max(results, key=lambda one: one[0].median)
        if not best.median >= least:  # also true for NaN
            raise _too_different(model, best, least)
        file.replace(target)
        return best


def _attempts(
    model: Path,
    crops: Sequence[Pixels],
    folder: Path,
    calibrated: Mapping[Calibration, int],
    step: Callable[[str], object],
) -> Iterator[tuple[Quantized, Path]]:
    """Quantize in each way, and compare with fp32 on crops that are not used for calibration."""
    checked = list(crops[::_CHECKED])
    others = [crop for number, crop in enumerate(crops) if number % _CHECKED]
    on_cpu = place("cpu", threads=0)
    step("preparing the graph")
    plain, graph = _prepare(model, folder)
    expected = _embeddings(Network(model, on_cpu, max_batch=1), checked)
    for calibration, most in calibrated.items():
        step(f"calibrating: {calibration}")
        chosen = _spread(others, most)
        ranges = _ranges(plain, graph, chosen, calibration, folder)
        for depthwise in (False, True) if _has_depthwise(plain) else (False,):
            file = folder / f"{calibration}-{depthwise}.onnx"
            _write(plain, file, ranges, depthwise=depthwise)
            cosines = (_embeddings(_quantized_network(file, on_cpu), checked) * expected).sum(axis=1)
            lowest, median = float(cosines.min()), float(np.median(cosines))
            found = Quantized(calibration, depthwise, len(chosen), len(checked), lowest, median)
            _log.info("%s quantized: %s", model.name, found)
            yield found, file


def _too_few(found: int) -> OceanoError:
    """Return the error for a folder with too few faces."""
    return OceanoError(
        "face_not_found",
        f"{found} faces were found, and at least {LEAST_FACES} are needed: name a folder with photographs of more "
        "people, best of several hundred faces",
        details={"faces": found, "least": LEAST_FACES},
    )


def _too_different(model: Path, best: Quantized, least: float) -> OceanoError:
    return OceanoError(
        "quantization_failed",
        f"{model.name} loses too much in int8: on {best.checked} faces the median cosine to fp32 is {best.median:.4f}, "
        f"and at least {least} is needed. Use more photographs, or PRECISION=auto",
        details={"median": round(best.median, 4), "lowest": round(best.lowest, 4), "least": least},
    )


def _quantized_network(file: Path, on_cpu: Placement) -> Network:
    return Network(file, replace(on_cpu, precision="int8"), max_batch=1)


def _spread(crops: Sequence[Pixels], most: int) -> list[Pixels]:
    """At most that many crops, evenly spread."""
    places = np.linspace(0, len(crops) - 1, min(most, len(crops))).astype(int)
    return [crops[place] for place in places]


def _embeddings(network: Network, crops: Sequence[Pixels]) -> Floats:
    raw = np.concatenate([outputs[0] for _, _, outputs in network.batches(crops)])
    norms = np.linalg.norm(raw, axis=1, keepdims=True)
    return np.asarray(raw / np.maximum(norms, 1e-12), np.float32)  # zeros stay zeros, with a cosine of 0


def _prepare(model: Path, folder: Path) -> tuple[Path, Graph]:
    """Write the graph with folded weights and batch normalizations, in an opset with scales for each channel."""
    import onnx

    loaded = onnx.load(model)
    graph = describe(loaded)
    if isinstance(graph, str) or graph.role != "recogniser":
        raise OceanoError("model_corrupt", f"{model.name} is not a recogniser", details={"file": str(model)})
    rewrite(loaded, graph, free_batch=False, for_cpu=False)
    opset = next(one.version for one in loaded.opset_import if one.domain in ("", "ai.onnx"))
    plain = folder / "plain.onnx"
    if opset < _LEAST_OPSET:
        loaded = onnx.version_converter.convert_version(loaded, _OPSET)
    onnx.save(loaded, folder / "loaded.onnx")
    options = _options()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(plain)
    onnxruntime.InferenceSession(str(folder / "loaded.onnx"), options, ["CPUExecutionProvider"])
    optimized = onnx.load(plain)
    for number, node in enumerate(optimized.graph.node):
        node.name = f"{node.op_type}_{number}"  # the quantizer names nodes by them, and they may be missing
    onnx.save(optimized, plain)
    return plain, graph


def _ranges(plain: Path, graph: Graph, crops: Sequence[Pixels], calibration: Calibration, folder: Path) -> Any:
    """The ranges of the activations, a few crops at a time, because histograms need all activations in memory."""
    from onnxruntime.quantization import CalibrationMethod, create_calibrator

    operators, _ = _chosen(plain, depthwise=True)
    with _quiet():
        calibrator = create_calibrator(
            plain,
            operators,
            augmented_model_path=str(folder / "augmented.onnx"),
            calibrate_method=CalibrationMethod[calibration],
            extra_options={"symmetric": False},
        )
        for start in range(0, len(crops), _AT_ONCE):
            blobs = [blob_of([crop], graph) for crop in crops[start : start + _AT_ONCE]]
            calibrator.collect_data(_Reader(graph.input_name, blobs))
        return calibrator.compute_data()


def _write(plain: Path, target: Path, ranges: Any, *, depthwise: bool) -> None:
    """Write the graph with QuantizeLinear and DequantizeLinear around the chosen operators."""
    import onnx
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    operators, excluded = _chosen(plain, depthwise=depthwise)
    with _quiet():
        quantizer = QDQQuantizer(
            onnx.load(plain),
            per_channel=True,
            reduce_range=True,
            weight_qType=QuantType.QInt8,
            activation_qType=QuantType.QUInt8,
            tensors_range=ranges,
            nodes_to_quantize=[],
            nodes_to_exclude=excluded,
            op_types_to_quantize=operators,
            extra_options={"ActivationSymmetric": False},
        )
        onnx.save(quantizer.quantize_model(), target)


def _chosen(plain: Path, *, depthwise: bool) -> tuple[list[str], list[str]]:
    """The operators to quantize, and the names of nodes that are left out."""
    import onnx

    nodes = onnx.load(plain, load_external_data=False).graph.node
    convolutions = [node for node in nodes if node.op_type == "Conv"]
    if len(convolutions) < 2:
        return ["Gemm", "MatMul"], []
    first, *others = convolutions
    grouped = [node for node in others if any(one.name == "group" and one.i > 1 for one in node.attribute)]
    return ["Conv", *_ABSORBED], [first.name] + ([] if depthwise else [node.name for node in grouped])


def _has_depthwise(plain: Path) -> bool:
    return _chosen(plain, depthwise=True) != _chosen(plain, depthwise=False)


class _Reader:
    """Gives crops to a calibrator, as its CalibrationDataReader."""

    def __init__(self, name: str, blobs: Sequence[Floats]) -> None:
        self._name = name
        self._blobs = iter(blobs)

    def get_next(self) -> dict[str, Floats] | None:
        """Return the next input; None after the last."""
        blob = next(self._blobs, None)
        return None if blob is None else {self._name: blob}


def _options() -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return options


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress what ONNX Runtime's quantizer prints; it must not disturb the output of a command."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield
