"""Whether cells go where they really go: clones, tracks and closed forms, beside not moving and static plans."""
