"""The demonstration on the built-in scenes: teacher, distilled and plain student, checked ONNX file, pictures."""
