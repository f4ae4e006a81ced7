"""One target per parser: a function of bytes that a fuzzer can call, and a bounded run of it here."""
