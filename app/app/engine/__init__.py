"""Face detection, alignment and recognition; `app.embeddings` combines the modules to the engine."""

from app.engine.onnx_runtime import probe
from app.engine.quantization import Quantized, quantize

__all__ = ["Quantized", "probe", "quantize"]
