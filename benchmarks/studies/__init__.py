"""Studies of one day and figures of the documentation: each is a module that runs on its own; not tested."""
