"""The speed benchmark: ``python -m benchmarks.speed [training | images | trajectory | toys]``.

* ``training``, the default: steps per second, plans, memory, and the seconds of an import;
* ``images``: images per second of U-Nets;
* ``trajectory``: seconds until a published accuracy on embryoid bodies;
* ``toys``: seconds until a published accuracy in the plane.

torchcfm takes part where it is installed (``make bench`` installs it beside us, and diffusers).
"""
