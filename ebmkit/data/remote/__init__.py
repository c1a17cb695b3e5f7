"""Shards that are not files here: fetched by HTTP or a command, tried again when that fails, kept in a folder."""
