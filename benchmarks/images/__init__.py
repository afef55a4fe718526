"""The image benchmark: ``python -m benchmarks.images translation | generation | few_step | features``.

* ``translation``: one set of images into another, without pairs;
* ``generation``: from noise to images, flow matching beside diffusion;
* ``few_step``: the same with few steps, flow maps and reflow beside the solver;
* ``features``: the small networks in whose features distances are measured.
"""
