"""Face detection, alignment and recognition on ONNX Runtime; `app.embeddings` combines its modules to the engine."""

from app.engine.runtime import probe

__all__ = ["probe"]
