"""Pictures and masks as files: opened, decoded, sampled, packed."""
