"""Held-out snapshots, scored by protocols that have names: ``python -m benchmarks.trajectory``.

Published numbers for the same data set are rarely comparable: start cells, cells scored, time grid, scaling and the
choice of the checkpoint all differ. Here each such set of choices is a row of ``protocols.py``, every score stands
beside baselines that learn nothing and beside the noise floor, and no method ever sees a held-out cell.

========================  ==========================================================================================
``sets.py``               the data sets, by name, or a file of the user's
``protocols.py``          what is left out, scaled, started from and scored
``tasks.py``              a protocol on a data set: what a method may see, and what is kept from it
``methods.py``            what a method is, and the flows of cellflow as methods
``recipe.py``             the published training recipe, with our parts
``peers.py``              other packages as methods
``baselines.py``          what must be beaten
``scores.py``             distances, with an interval
``records.py``            one JSON file for each run; skipped when it is there, refused when it is another
``run.py``                the loop over folds and seeds
``table.py, figures.py``  what is published of it
``speed.py``              seconds until a score is reached, beside torchcfm
========================  ==========================================================================================
"""
