"""Checks whether the daemon could start with the present configuration, for knockknock-daemon check."""

import sys

from ..errors import KnockError
from ..root.firewall import survey
from ..root.listing import connect
from ..server import event_dispatch, file_ownership, loading, policy_reader, privsep, sandbox
from ..server.config import load_config
from . import log_probe, service_manager


def check(path: str) -> None:
    """Check everything that a start needs; change nothing that stays.

    Raises KnockError if a start would fail, or hear nothing.
    """
    settings = load_config(path)
    print(f"configuration {path}: good")
    for key in settings.obsolete:
        print(f"{key} has no effect any more: remove it from {path}", file=sys.stderr)
    user = privsep.find_user(settings.user)
    complaints = [
        *file_ownership.complaints(path, settings),
        *file_ownership.state(settings.state, user.pw_uid, user.pw_gid),
    ]
    for complaint in complaints:
        print(complaint, file=sys.stderr)
    source = service_manager.open_source(settings, user, look=True)
    print(f"source: {source.path}")
    if complaint := source.complaint():
        print(complaint, file=sys.stderr)
    found = loading.look(settings, source.GIVES)
    for profile, _ in sorted(found.changes, key=lambda change: change[0].name):
        print(
            f"profile {profile.name}: knock port {profile.where}, {profile.kind}, "
            f"may open {', '.join(map(str, profile.ports))} for {profile.delay or settings.delay} s"
        )
    for name, error in found.bad.items():
        print(f"profile {name}: {error}", file=sys.stderr)
    event_dispatch.check(settings)
    sandbox.prepare(settings.sandbox, [path], ["/"], None)  # prepared, but not entered
    if complaints:
        raise KnockError("not all is well, see above")
    limits = policy_reader.policy(path)
    firewall = survey(connect(), limits.label)
    pointless = not (firewall.refuses or limits.protect)
    print(firewall.text(limits), file=sys.stderr if pointless else sys.stdout)
    try:
        print(log_probe.heard(settings))
    except KnockError as error:
        print(error, file=sys.stderr)
        complaints.append(str(error))
    if found.bad or pointless or complaints:
        raise KnockError("not all is well, see above")
