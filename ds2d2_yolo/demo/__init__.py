"""The demonstration on the built-in scenes: teacher, amplifier, distilled and plain student, checked ONNX file."""
