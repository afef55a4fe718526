"""Held-out snapshots, scored by protocols that have names: ``python -m benchmarks.trajectory``.

Published numbers for the same data set are rarely comparable: start cells, cells scored, time grid, scaling and the
choice of the checkpoint all differ. Here each such set of choices is an entry of ``protocols.yaml``, every score stands
beside baselines that learn nothing and beside the noise floor, and no method ever sees a held-out cell.

``sets`` has the data, ``tasks`` a protocol on a data set, ``methods`` what a method is, ``others`` those of others,
``baselines`` what must be beaten, ``scores`` the scores; ``run`` is the loop over folds and seeds, and keeps the rows;
``table`` shows them.
"""
