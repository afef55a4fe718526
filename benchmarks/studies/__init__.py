"""Studies of one day: each is a module that runs on its own; kept, not tested."""
