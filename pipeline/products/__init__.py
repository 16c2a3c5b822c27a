"""What a vendor delivers becomes one raster."""
