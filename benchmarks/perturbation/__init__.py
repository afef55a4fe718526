"""What a treatment does to cells that were not seen with it: ``python -m benchmarks.perturbation``.

``sets`` has the data, ``folds`` what is held out and what is asked, ``scores`` the scores, ``baselines`` what must be
beaten, ``methods`` the flows, ``others`` those of others; ``table`` shows the rows.

A method is a callable of the cells that it may see and of the questions; it never sees a held-out cell. The change that
is scored is that against the *measured* untreated cells: what a method says of untreated cells counts for nothing.
R2 of mean expression is above .95 for everything, no change included, and is never used.
"""
