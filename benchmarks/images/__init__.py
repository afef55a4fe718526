"""What the image benchmarks share: sizes of network and training, tables of rows, pictures, the command line."""
