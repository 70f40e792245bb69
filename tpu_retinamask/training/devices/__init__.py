"""Where a training runs: devices, replicas, and TPUs that are only described."""
