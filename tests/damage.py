"""What a stranger, or a broken disk, may have made of a file that cellflow saved."""

import copy
import json
import math

import torch

DEEP, DIGITS = "@deep@", "@digits@"
OTHERS = {
    "nothing": None, "text": "x", "true": True, "huge": 10**18, "many": 200_000, "negative": -1, "fraction": 0.5,
    "NaN": math.nan, "infinity": math.inf, "list": [], "object": {}, "deep": DEEP, "digits": DIGITS,
    "part": {"part": "Recipe", "values": {}}, "class": {"class": "UNet"}, "odd text": "\ud800",
}  # fmt: skip
"""Values in place of the one that was saved."""


def places(value, at=()):
    """Where something can be changed: every key, and the first value of each list."""
    if at:
        yield at
    if isinstance(value, dict):
        for key in value:
            yield from places(value[key], (*at, key))
    elif isinstance(value, list):
        for number in range(min(len(value), 1)):
            yield from places(value[number], (*at, number))


def changed(about, place, how):
    """JSON with one change: something else, less or more at one place."""
    about = copy.deepcopy(about)
    parent = about
    for key in place[:-1]:
        parent = parent[key]
    if how == "missing":
        del parent[place[-1]]
    elif how == "more":
        here = parent[place[-1]]
        here.update(unheard_of=1) if isinstance(here, dict) else here.append(1)
    else:
        parent[place[-1]] = OTHERS[how]
    return json.dumps(about).replace(f'"{DEEP}"', "[" * 10**5 + "]" * 10**5).replace(f'"{DIGITS}"', "1" * 5000)


def descriptions(about, *, few=False):
    """Changes of a description, with a name each: at every place four, and the others in turn or, if asked, none."""
    for number, place in enumerate(places(about)):
        here = about
        for key in place:
            here = here[key]
        always = ["missing", "nothing", "list", *(["more"] if isinstance(here, dict | list) else ["NaN"])]
        others = [how for turn, how in enumerate(OTHERS) if turn % 3 == number % 3 and how not in always]
        for how in always + ([] if few else others):
            yield ".".join(map(str, place)), how, changed(about, place, how)


def damaged_tensors(tensors):
    """Changes of the tensors of a file, with a name each: all of the first one, and two of every other in turn."""
    yield "", "more", {**tensors, "unheard_of": torch.zeros(2)}
    for number, (name, tensor) in enumerate(tensors.items()):
        changes = {
            "missing": {key: value for key, value in tensors.items() if key != name},
            "renamed": {f"{key}s" if key == name else key: value for key, value in tensors.items()},
        }
        shape, dtype = tensor.shape, tensor.dtype
        others = {"wider": torch.zeros(*shape, 2, dtype=dtype), "empty": torch.zeros(0, 10**9, dtype=dtype)}
        others["int8"] = tensor.to(torch.int8)
        if tensor.is_floating_point():
            others |= {"half": tensor.half(), "double": tensor.double(), "complex": tensor.to(torch.complex64)}
            bads = (math.nan, math.inf) if tensor.numel() else ()  # nothing of an empty one can be damaged
            others |= {str(bad): torch.full_like(tensor, bad) for bad in bads}
        changes |= {how: tensors | {name: other} for how, other in others.items()}
        for turn, (how, made) in enumerate(changes.items()):
            if number == 0 or turn % len(changes) in (number % len(changes), (number + 5) % len(changes)):
                yield name, how, made
