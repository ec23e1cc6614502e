"""The energies of the Haar bands: on a CPU, by operators of torch on any device, and as Triton kernels."""
