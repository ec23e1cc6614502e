"""Pieces of `tools/gpu_check.py`: checks and measurements that need a GPU, each in a process of its own."""
