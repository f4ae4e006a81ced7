"""Every scheme keeps the protocols: mypy compares listeners, and each profile module has what it must."""

import inspect

import pytest

from knockknock import schemes
from knockknock.core.profile import Settings
from knockknock.schemes.otp import listener as otp
from knockknock.schemes.otp import profile as otp_profile
from knockknock.schemes.protocols import Listener, Scheme
from knockknock.schemes.sequence import listener as sequence
from knockknock.schemes.sequence import profile as sequence_profile
from knockknock.schemes.syn import listener as syn
from knockknock.schemes.syn import profile as syn_profile

SETTINGS = Settings(15, 20, True)
SYN: Listener[syn_profile.Profile, int] = syn.new_listener(SETTINGS, 0)
SEQUENCE: Listener[sequence_profile.Profile, int] = sequence.new_listener(SETTINGS, 0)
OTP: Listener[otp_profile.Profile, otp_profile.Memory] = otp.new_listener(SETTINGS, 0)

ALWAYS = {"KEYS", "SECRETS", "KEY", "RAW", "read_key", "write_key", "parse", "write", "unshared", "first", "recall"} | {
    "counter"
}
WITHOUT_RAW = {"BOUND", "sends"}


@pytest.mark.parametrize("word", schemes.SCHEMES)
def test_profile_modules(word: str) -> None:
    scheme = schemes.load(word)
    for name in ALWAYS | (set() if scheme.RAW else WITHOUT_RAW):
        assert hasattr(scheme, name), name
        if inspect.isfunction(ours := getattr(scheme, name)):
            asked = inspect.signature(getattr(Scheme, name)).parameters
            assert len(inspect.signature(ours).parameters) == len(asked) - 1, f"{name}, but for self"


def test_unknown_words() -> None:
    for word in ("", "Syn", "syn.profile", "..server"):
        with pytest.raises(KeyError):
            schemes.load(word)
