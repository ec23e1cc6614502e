"""The demonstration: the whole story on the built-in scenes, from a teacher's first epoch to a checked ONNX student."""
