"""The part of packaging that pyproject.toml cannot say: man pages, examples, and completions made from the parsers."""

import sys
from pathlib import Path

from setuptools import setup

# Behind setuptools, whose own copy this is; Python 3.12 has no other.
from distutils.command.install_data import install_data  # isort: skip

HERE = Path(__file__).parent


class InstallData(install_data):
    """Adds the shells' completions: those in completions/, if somebody has made them there, else new ones."""

    def run(self) -> None:
        made = Path("completions")
        if not made.is_dir():
            made = Path(self.get_finalized_command("build").build_base) / "completions"
            sys.path.insert(0, str(HERE / "scripts"))
            import completions  # needs shtab, which only a build has

            completions.write(made)
        files = sorted(path for path in made.rglob("*") if path.is_file())
        self.data_files += [(f"share/{path.relative_to(made).parent}", [str(path)]) for path in files]
        super().run()


PAGES = sorted(Path("docs/man").glob("*.[1-8]"))
EXAMPLES = [*sorted(Path("config").iterdir()), Path("minimal-firewall.sh")]

setup(
    cmdclass={"install_data": InstallData},
    data_files=[
        *((f"share/man/man{page.suffix[1:]}", [str(page)]) for page in PAGES),
        ("share/doc/knockknock/examples", [str(path) for path in EXAMPLES]),
    ],
)
