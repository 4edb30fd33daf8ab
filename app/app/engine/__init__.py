"""Face detection, alignment and recognition; `app.embeddings` combines the modules to the engine."""

from app.engine.onnx_runtime import probe
from app.engine.quantization import LEAST_FACES, Quantized, quantize, too_few

__all__ = ["LEAST_FACES", "Quantized", "probe", "quantize", "too_few"]
