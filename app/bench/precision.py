"""What lower precisions change in embeddings and in searches, on real photographs.

    REAL_PACK_DIR=... REAL_FACES_DIR=... .venv/bin/python app/bench/precision.py [--int8 FILE]

The faces of the named people in `people` and `groups`, and the others of `groups` and `hard`, are found and cropped
once, in fp32. Their embeddings in fp32 are compared with those in

- `bf16`, emulated: processors with BF16 multiply bf16 values and add the products in fp32, so the inputs and weights of
  every convolution and matrix product are rounded to bf16, and the products are computed in fp32; what other operators
  read is rounded, too, since it is stored in bf16;
- `bf16_here`, as PRECISION=bf16 computes on this machine, if the processor has BF16;
- `fp16`, as PRECISION=fp16 computes on this machine;
- `int8`, with the file of `--int8`, or a recogniser quantized here with every second face, compared on the others.

The last line is one JSON object. For each precision: the `cosine` of each face's embedding to that in fp32; and three
searches of each face among all others: with the gallery in fp32 and the queries in the precision (`asked_in_it`), the
other way round (`stored_in_it`), and both in it (`all_in_it`). Each has the mean overlap of the ten best with those of
fp32, true and false matches at the pack's threshold (`fp32` has those of fp32 alone; a pair counts twice), how many
pairs cross the threshold, and how far the similarities of one person and of different people move.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from app.core.config import load_settings
from app.core.types import Floats, Picture, Pixels
from app.embeddings import FaceEngine
from app.engine import openvino_runtime
from app.engine.network import Network
from app.engine.placement import place
from app.engine.quantization import quantize
from app.packs.store import find_pack
from bench.pictures import folder_of, read_picture
from bench.sureness import IN_GROUPS

PRODUCTS = ("Conv", "Gemm", "MatMul")
STORED = (*PRODUCTS, "Add", "PRelu", "Relu", "Clip", "BatchNormalization")  # read what is stored between operators
BEST = 10
Truth = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Faces:
    """Crops, and the name of each person; empty if unknown."""

    crops: list[Pixels]
    names: list[str]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--int8", type=Path, help="a recogniser that `oceano models quantize` wrote")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="oceano-bench-") as name:
        folder = Path(name)
        pack = find_pack(str(folder_of("REAL_PACK_DIR")), folder)
        settings = load_settings(None, device="cpu", runtime="onnxruntime", precision="fp32", data_dir=folder)
        faces = _faces(FaceEngine(pack, settings, many=True), folder_of("REAL_FACES_DIR"))
        placement = place("cpu", threads=1)
        fp32 = _embeddings(Network(pack.recogniser, placement, max_batch=1), faces.crops)
        said: dict[str, Any] = {"pack": pack.name, "faces": len(faces.crops), "threshold": pack.threshold}
        said["fp32"] = _matches(fp32 @ fp32.T, faces.names, pack.threshold)
        bf16 = folder / "bf16.onnx"
        write_in_bf16(pack.recogniser, bf16)
        every = np.arange(len(fp32))
        int8, held_out = asked.int8, every
        if int8 is None:
            int8, held_out = folder / "int8.onnx", every[1::2]
            quantize(pack.recogniser, faces.crops[::2], int8)
        networks = [("bf16", Network(bf16, placement, max_batch=1), every)]
        if "bf16" in openvino_runtime.precisions():
            here = replace(placement, runtime="openvino", precision="bf16")
            networks.append(("bf16_here", Network(pack.recogniser, here, max_batch=1), every))
        networks += [
            ("fp16", Network(pack.recogniser, replace(placement, precision="fp16"), max_batch=1), every),
            ("int8", Network(int8, replace(placement, precision="int8"), max_batch=1), held_out),
        ]
        for precision, network, which in networks:
            part = Faces([faces.crops[one] for one in which], [faces.names[one] for one in which])
            found = _embeddings(network, part.crops)
            said[precision] = _compared(fp32[which], found, part.names, pack.threshold)
        print(json.dumps(said))


def write_in_bf16(model: Path, target: Path) -> None:
    """Write a model whose products have inputs and weights that are rounded to bf16, computed in fp32.

    Rounds to the nearest bf16 value by keeping the upper 16 bits, ties to even, as Cast does.
    """
    from app.core.onnx_graph import Graph, describe
    from app.engine.graph_optimizations import rewrite

    loaded = onnx.load(model)
    described = describe(loaded)
    if not isinstance(described, Graph):
        sys.exit(f"{model.name}: {described}")
    rewrite(loaded, described, free_batch=False, for_cpu=False)
    opset = next(one for one in loaded.opset_import if one.domain in ("", "ai.onnx"))
    if opset.version < 13:  # the first with bf16
        loaded = onnx.version_converter.convert_version(loaded, 17)
    graph = loaded.graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    nodes, cast = [], set()
    for node in graph.node:
        if node.op_type in STORED:
            for place_of, name in enumerate(node.input[:2]):  # not the bias, which is added in fp32
                if name in tensors and node.op_type not in PRODUCTS:
                    continue
                rounded = f"{name}_in_bf16"
                if rounded not in cast and name in tensors:
                    tensor = numpy_helper.from_array(to_bf16(numpy_helper.to_array(tensors[name])), rounded)
                    graph.initializer.append(tensor)
                elif rounded not in cast:
                    nodes.append(helper.make_node("Cast", [name], [f"{name}_bf16"], to=TensorProto.BFLOAT16))
                    nodes.append(helper.make_node("Cast", [f"{name}_bf16"], [rounded], to=TensorProto.FLOAT))
                cast.add(rounded)
                node.input[place_of] = rounded
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.save(loaded, target)


def to_bf16(values: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Round to the nearest values that bf16 can hold."""
    import ml_dtypes

    return values.astype(ml_dtypes.bfloat16).astype(np.float32)


def _faces(engine: FaceEngine, folder: Path) -> Faces:
    """Crops of all faces; those of whole groups have names by their order from left to right."""
    faces = Faces([], [])
    for path in sorted(folder.glob("*/**/*.*")):
        if path.suffix == ".md":
            continue
        pixels = read_picture(path)
        height, width = pixels.shape[:2]
        picture = Picture("0" * 64, pixels, "PNG", None, width, height)
        crops = engine.crops([picture])
        people = IN_GROUPS.get(path.stem, ()) if path.parent.name == "groups" else (path.parent.name,)
        named = len(people) == len(crops) and path.parent.name != "hard"
        faces.crops.extend(crops)
        faces.names.extend(people if named else [""] * len(crops))
    return faces


def _embeddings(network: Network, crops: list[Pixels]) -> Floats:
    raw = np.concatenate([outputs[0] for _, _, outputs in network.batches(crops)])
    return np.asarray(raw / np.linalg.norm(raw, axis=1, keepdims=True), np.float32)


def _compared(fp32: Floats, other: Floats, names: list[str], threshold: float) -> dict[str, Any]:
    cosines = (fp32 * other).sum(axis=1)
    plain = fp32 @ fp32.T
    return {
        "faces": len(fp32),
        "cosine": {"min": _round(cosines.min()), "median": _round(np.median(cosines))},
        "asked_in_it": _search(plain, other @ fp32.T, names, threshold),
        "stored_in_it": _search(plain, fp32 @ other.T, names, threshold),
        "all_in_it": _search(plain, other @ other.T, names, threshold),
    }


def _search(plain: Floats, changed: Floats, names: list[str], threshold: float) -> dict[str, Any]:
    """Compare two tables of similarities, (queries, gallery); a face is not searched for in itself."""
    count = min(BEST, len(plain) - 1)
    rows = _without_self(plain, changed)
    overlaps = [len(set(_best(a, count)) & set(_best(b, count))) / count for a, b in rows]
    first = [_best(a, 1) == _best(b, 1) for a, b in rows]
    one_person, strangers = _pairs(names)
    moved = np.abs(changed - plain)
    crossed = (changed >= threshold) != (plain >= threshold)
    return {
        f"overlap_{count}": _round(np.mean(overlaps)),
        "first_is_the_same": _round(np.mean(first)),
        **_matches(changed, names, threshold),
        "cross_the_threshold": int(crossed[one_person | strangers].sum()),
        "same_person_moves": _moves(moved[one_person]),
        "strangers_move": _moves(moved[strangers]),
    }


def _matches(similarities: Floats, names: list[str], threshold: float) -> dict[str, int]:
    """Pairs of named people at or above the threshold; each pair counts in both directions."""
    one_person, strangers = _pairs(names)
    found = similarities >= threshold
    return {
        "pairs_of_one_person": int(one_person.sum()),
        "true_matches": int((found & one_person).sum()),
        "pairs_of_strangers": int(strangers.sum()),
        "false_matches": int((found & strangers).sum()),
    }


def _pairs(names: list[str]) -> tuple[Truth, Truth]:
    """Which pairs are of one person, and which of different people; a pair with an unnamed face is neither."""
    labels = np.array(names)
    known = (labels[:, None] != "") & (labels[None] != "") & ~np.eye(len(names), dtype=bool)
    same = labels[:, None] == labels[None]
    return known & same, known & ~same


def _without_self(*tables: Floats) -> list[tuple[Floats, ...]]:
    return [tuple(np.delete(table[row], row) for table in tables) for row in range(len(tables[0]))]


def _best(similarities: Floats, count: int) -> list[int]:
    return [int(one) for one in np.argsort(-similarities, kind="stable")[:count]]


def _moves(moved: Floats) -> dict[str, float]:
    return {"mean": _round(moved.mean()), "most": _round(moved.max())}


def _round(value: Any) -> float:
    return round(float(value), 5)


if __name__ == "__main__":
    main()
