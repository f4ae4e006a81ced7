"""The commands, one file each. Here: how each of them ends with a sentence and a status."""

import sys
from collections.abc import Callable

from ..errors import KnockError


def run(name: str, command: Callable[[list[str]], None]) -> None:
    """Run a command; a KnockError is one line on stderr and exit status 1. Usage errors are argparse's, status 2."""
    try:
        command(sys.argv[1:])
    except KnockError as error:
        sys.exit(f"{name}: {error}")
    except ModuleNotFoundError as error:
        sys.exit(f"{name}: the Python package {error.name} is not installed: pip install this project, as README says")
    except KeyboardInterrupt:
        sys.exit(130)
