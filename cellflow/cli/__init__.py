"""The command line: ``cellflow demo | fit | ... | translate | generate``. The only place that knows hydra.

`entry` runs a command; `cells`, `translation` and `generation` hold the commands.
"""

from cellflow.cli.entry import COMMANDS, configs_folder, main

__all__ = ["COMMANDS", "configs_folder", "main"]
