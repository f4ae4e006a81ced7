"""Errors; the text of each is one sentence for a person: what failed, where, and how to fix it."""


class KnockError(Exception):
    """Anything that ends a command with a sentence instead of a traceback."""


class ConfigError(KnockError):
    """A configuration file or a profile's config does not say something we can act on."""


class GuardError(ConfigError):
    """The scan guard would block the clients of a profile."""


class ProfileError(KnockError):
    """A profile is missing, unreadable, unsafe or incomplete."""


class CounterError(KnockError):
    """A counter could not be read, or could not be stored durably."""


class GrantError(KnockError):
    """A record is no grant, or asks for more than the policy allows."""


class FirewallError(KnockError):
    """The kernel's packet filter could not be found out, prepared or changed."""


class SourceError(KnockError):
    """The place where logged packets come from cannot be opened or has gone."""


class PrivilegeError(KnockError):
    """Root could not be given up, could be had back, or the root helper is gone."""


class SendError(KnockError):
    """A knock could not be built or sent from this machine."""


class OutputError(KnockError):
    """Standard output cannot be written."""
