"""Seconds and memory at scale: ``python -m benchmarks.scale [subject ...] size=small|full``.

Every file here that has ``CASES`` is a subject, and its docstring the text above its table. ``CASES`` gives for each
size the `Case` s to be measured: ``small`` takes a minute, ``full`` is what the committed table has. ``act`` of a case
is a function of the subject's file; it runs in a process of its own as ``act(watch, **settings)``, prepares what it
needs, does what is measured within ``with watch:``, and returns what else the row shall tell, such as a cost::

    def plan(watch: Watch, *, n: int, m: int) -> Row:
        x0, x1 = ...
        with watch:
            found = cf.couplings.Exact()(x0, x1)
        return {"cost": ...}

    CASES = {"small": [Case(plan, {"n": 300, "m": 400}, problem="exact plan, 300 x 400")], "full": [...]}

Seconds on the wall, CPU seconds with those of child processes, and memory are the watch's. A case that fails has a row
that says how, and is measured again by the next run, as is one whose settings changed.
"""
