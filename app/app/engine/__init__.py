"""Face detection, alignment and recognition; `app.embeddings` combines the modules to the engine."""

from app.engine.onnx_runtime import probe

__all__ = ["probe"]
