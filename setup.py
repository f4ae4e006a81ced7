"""Packaging. The distribution has a name of its own, because the import name's is another project's."""

import re
import sys
from pathlib import Path

from setuptools import find_packages, setup

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
    name="knockknock-spa",
    version=re.findall(r'__version__ = "(.+)"', (HERE / "knockknock" / "__init__.py").read_text())[0],
    description="Port knocking by one encrypted SYN",
    long_description=(HERE / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.11",
    packages=find_packages(include=["knockknock", "knockknock.*"]),
    install_requires=["cryptography>=38", "inotify_simple>=1.3"],
    extras_require={
        # Needs a compiler on many machines; only where iptables is the legacy one.
        "legacy": ["python-iptables>=1.0"],
        # Only where Debian's python3-seccomp, libseccomp's own binding, cannot be seen, as in a virtual environment.
        "sandbox": ["pyseccomp>=0.1.2"],
        # For scripts/completions, and so for scripts/build-deb.
        "package": ["shtab>=1.13"],
        # Only for textfile =.
        "metrics": ["prometheus-client>=0.16"],
        # Only for knockknock-genprofile --qr.
        "qr": ["segno>=1.4.1"],
        # Only for --explain and --pcap.
        "explain": ["scapy>=2.5"],
        # knockknock-proxy: parsers without I/O.
        "proxy": ["h11>=0.14", "siosocks>=0.3"],
        "test": [
            "build",
            "h11>=0.14",
            "hypothesis",
            "mypy",
            # Reads what knockknock-genprofile --qr draws.
            "pillow",
            # Another SOCKS proxy, which scripts/proxy-bench measures beside ours.
            "pproxy>=2.7",
            "prometheus-client>=0.16",
            "pyseccomp>=0.1.2",
            "pytest",
            # The tests mostly wait: they run side by side.
            "pytest-xdist>=3.5",
            "ruff",
            "scapy>=2.5",
            "segno>=1.4.1",
            "shtab>=1.13",
            "siosocks>=0.3",
            "types-setuptools",
            "zxing-cpp>=2.2",
            # Has wheels for few machines, and takes a whole clang to build elsewhere; its tests are skipped there.
            'atheris; platform_machine == "x86_64" and python_version < "3.15"',
        ],
    },
    cmdclass={"install_data": InstallData},
    data_files=[
        *((f"share/man/man{page.suffix[1:]}", [str(page)]) for page in PAGES),
        ("share/doc/knockknock/examples", [str(path) for path in EXAMPLES]),
    ],
    entry_points={
        "console_scripts": [
            "knockknock = knockknock.cli.knockknock:main",
            "knockknock-daemon = knockknock.cli.daemon:main",
            "knockknock-genprofile = knockknock.cli.genprofile:main",
            "knockknock-proxy = knockknock.cli.proxy:main",
        ]
    },
    classifiers=[
        "License :: OSI Approved :: MIT License",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Topic :: System :: Networking :: Firewalls",
    ],
)
