"""A folder of scenes as one job that may be started again."""
