"""What computes a model: Keras, OpenVINO, ONNX Runtime; exported graphs and cached features."""
