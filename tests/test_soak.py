"""What the soak test would notice."""

import soak


def test_what_keeps_nothing_passes():
    assert soak.repeated("nothings", 8, lambda: None) == 0


def test_kept_memory_and_files_are_noticed(monkeypatch):
    """Each repeat keeps a file, and a mebibyte as the system counts it."""
    kept = []
    monkeypatch.setattr(soak, "resident", lambda: 1024.0 * len(kept))
    assert soak.repeated("leaks", 8, lambda: kept.append(open(__file__))) == 2  # noqa: PTH123, SIM115
    for file in kept:
        file.close()


def test_an_interrupted_training_is_resumed():
    soak.resumed()
