"""A prepared data set: TFRecord shards with an index and checksums, written once and read by place."""
