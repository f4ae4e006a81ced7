"""Values and codecs of both sides. Pure: no I/O, no clock."""
