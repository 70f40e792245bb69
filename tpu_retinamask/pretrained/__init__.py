"""Where a network's first weights come from: files of other projects, downloads, checkpoints of ours."""
