"""Face detection and alignment on ONNX Runtime; `app.embeddings` combines the parts."""
