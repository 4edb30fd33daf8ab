"""From pixels to faces: ONNX Runtime sessions, detectors, alignment, quality. `app.embeddings` puts it together."""
