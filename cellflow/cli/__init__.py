"""The command line: ``cellflow demo | fit | ... | translate | generate``. The only place that knows hydra.

`entry` runs a command; `cells`, `translation`, `generation` and `distillation` hold the commands. A command line goes
from `words` (what is said) through `compose` (which files) and `checks` (which settings, of which kinds: `schema`,
`kinds`, `parts`) to `settings`; nothing is read or fitted before all of it fits.
"""

from cellflow.cli.compose import configs_folder
from cellflow.cli.entry import COMMANDS, main

__all__ = ["COMMANDS", "configs_folder", "main"]
