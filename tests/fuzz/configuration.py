"""The daemon's configuration."""

import re

from knockknock.errors import ConfigError
from knockknock.server.config import MAX_DELAY, parse

WHERE = "/etc/knockknock.d/config"
CORPUS = [
    b"[main]\n",
    b"# comment\n[main]\ndelay = 15\nerror_window = 20  # counters\nsingle_use = yes\n",
    b"[main]\nsource = kmsg\nlog_file = /var/log/kern.log\nnflog_group = 7\nlog = syslog\nuser = knockknock\n",
    b"[main]\nprotect = tcp/22, udp/5-6\nprotect_reject = yes\nprotect_allow = 192.0.2.0/24\nfirewall = nftables\n",
    b"[main]\nprofiles: /etc/knockknock.d/profiles\nstate=/var/lib/knockknock\n\n; end\n",
    b"delay = 1\n[other]\n[main]\ndelay = 1\ndelay = 2\n[DEFAULT]\nuser = x\n  y\n",
]


def target(data: bytes) -> None:
    """A text is refused with its place, or gives values that the daemon can use without looking at them again."""
    try:
        config = parse(data.decode("utf-8", "replace"), WHERE)
    except ConfigError as error:
        sentence = str(error)
        assert sentence.startswith(f"{WHERE}:")
        return
    assert 1 <= config.delay <= MAX_DELAY
    assert 1 <= config.error_window <= 1000
    assert config.single_use in (True, False)
    assert config.source in ("auto", "file", "kmsg", "nflog")
    assert 1 <= config.nflog_group <= 65535
    assert all(protocol in (6, 17) and 0 < first <= last < 65536 for protocol, first, last in config.protect)
    assert config.log in ("stderr", "syslog")
    for path in (config.log_file, config.profiles, config.state):
        assert path.startswith("/")
        assert not path.endswith("/")
        assert "\0" not in path
        assert "\n" not in path
    assert re.fullmatch(r"[\w.-]+", config.user)
