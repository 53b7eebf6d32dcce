"""Networks in NIR, the Neural Intermediate Representation (HDF5): written, and read."""
