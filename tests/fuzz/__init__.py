"""Inputs nobody thought of: each public function is called with them, and must answer or say in words what is wrong.

`judge` says which endings are acceptable; `profile` how many inputs there are in which run; `__main__` counts.
"""
