"""The command line: ``cellflow demo | fit | ... | translate | generate``. The only place that knows hydra.

`entry` is the program, `running` runs a command; `cells`, `perturbation`, `translation`, `generation` and
`distillation` hold the commands, each imported when it is run. A command line goes from `words` (what is said) through
`compose` (which files) and `checks` (which settings, of which kinds: `schema`, `choices`, `kinds`, `parts`) to
`settings`, of which `built` makes parts; nothing is read or fitted before all of it fits.
"""

from cellflow.cli.commands import COMMANDS
from cellflow.cli.configs import configs_folder
from cellflow.cli.entry import main

__all__ = ["COMMANDS", "configs_folder", "main"]
