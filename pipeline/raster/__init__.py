"""A raster opened, understood and read by window, and the only place that converts digital numbers."""
