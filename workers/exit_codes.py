"""What a worker process's exit code means; after BSD's ``sysexits.h``."""

from typing import Final

EXIT_OK: Final = 0
EXIT_ENGINE: Final = 70
"""The engine did not start, or died: a restart may help."""
EXIT_CONFIGURATION: Final = 78
"""The settings are wrong: a restart does not help."""
