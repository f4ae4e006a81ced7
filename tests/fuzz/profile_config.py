"""A profile's config."""

from knockknock import schemes
from knockknock.errors import ConfigError
from knockknock.profiles.text import named, parse_config, write_config
from knockknock.schemes.syn.profile import Profile

WHERE = "/etc/knockknock.d/profiles/alice/config"
CORPUS = [
    b"[main]\nknock_port = 4242\n",
    b"[main]\nknock_port = 4242\nformat = compact\nports = tcp/22\n",
    b"[main]\nknock_port = 1\nformat = stealth\nports = tcp/22, udp/51820, tcp/8000-8010\nbind_source = yes\n",
    b"[main]\nknock_port: 65535 ; here\nformat = classic\nports = tcp/1-65535\nsingle_use = no\n",
    b"[main]\nscheme = sequence\nports = tcp/2002, 2001:udp\nopens = tcp/22\ntime = 5\nstrict = no\nclose = 1, 2\n",
    b"[main]\nscheme = sequence\none_time = list\nopens = tcp/22\ntotal_time = 9\nflags = fin, !syn\n",
    b"[main]\nscheme = otp\nknock_port = 4000\nports = tcp/22, udp/1-15\notp_layout = pknock\nsingle_use = no\n",
    b"knock_port = 4242\n[main]\nknock_port = 0\n",
]


def target(data: bytes) -> None:
    """A text is refused with its place, or describes a profile that is the same when written and read again."""
    try:
        draft = parse_config(data.decode("utf-8", "replace"), WHERE)
    except ConfigError as error:
        sentence = str(error)
        assert sentence.startswith(f"{WHERE}:")
        return
    keys = {field: bytes(16) for field in schemes.load(draft.scheme).SECRETS}
    profile = named(draft, "alice", keys)
    assert profile.knock_ports or profile.file
    assert all(protocol in (6, 17) and 1 <= port <= 65535 for protocol, port in profile.knock_ports)
    assert profile.ports
    assert all(one.protocol in (6, 17) and 1 <= one.first <= one.last <= 65535 for one in profile.ports)
    again = named(parse_config(write_config(profile), WHERE), "alice", keys)
    assert again == named(profile, "alice", {}, **({"legacy": False} if profile.legacy else {}))
    if isinstance(profile, Profile) and profile.format == "classic":
        assert not profile.bind_source
        assert {one.protocol for one in profile.ports} == {6}
