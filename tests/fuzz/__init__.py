"""One target per parser: a function of bytes that a fuzzer can call, and a bounded run of it here.

Each module has CORPUS, inputs to begin with, and target(data), whose docstring says what must hold for all of them.
"""

TARGETS = (
    "kernel_line",
    "nflog_packet",
    "grant_record",
    "doors_answer",
    "control_request",
    "hook_facts",
    "configuration",
    "profile_config",
    "sequence_list",
    "key_file",
    "counter_file",
    "proxy_request",
    "enrolment",
    "client_config",
    "syn_packet",
    "otp_payload",
    "otp_memory",
)
"""The modules; a new parser needs a row here and a module of that name."""
