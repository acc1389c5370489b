"""What executes the annotations while tests run."""

from beartype import BeartypeConf, beartype

# An int is a float, as every static type checker reads it.
with_int_as_float = beartype(conf=BeartypeConf(is_pep484_tower=True))
