"""The errors a user can mend. Each text is one sentence that names the value and the remedy.

The command line turns these, and only these, into that sentence and exit code 2; anything else
is a bug and keeps its traceback.
"""


class RagbotError(Exception):
    """Something that the user, not the programmer, can put right."""


class ConfigError(RagbotError):
    """A setting or an argument is unknown or out of bounds."""


class UnknownDocumentError(ConfigError):
    """What names documents names none of those that are there."""


class CorpusError(RagbotError):
    """A corpus is missing, empty, or in a form that cannot be read."""


class StoreError(RagbotError):
    """An index is missing, damaged, or was made by something else."""


class UnreachableError(StoreError):
    """The server of an index does not do what it is asked; it may do so later."""


class ModelError(RagbotError):
    """A model cannot be found, assembled, loaded or reached."""


class ServerError(ModelError):
    """A server that generates is away or did not finish: another may be asked instead."""
