"""The rivals, distillation methods other than DS2D2, for a pair of Ultralytics models."""
