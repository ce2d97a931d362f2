"""The kernels: one folder per op, in it one file (or folder) per target. An implementation is a module with the agreed
names, found by its path; see CONTRIBUTING.md."""
