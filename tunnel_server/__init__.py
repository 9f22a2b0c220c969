"""A relay for the FIDO hybrid transport: anyone can run one."""
