"""Areas of interest as files."""

import json

import shapely
from raster_cases import UTM
from rasterio.warp import transform_geom


def geojson(path, *polygons, crs=UTM, own=UTM, **more):
    """A collection in degrees, as the standard has it, or in ``own``, as the older one allowed."""
    moved = [transform_geom(crs, own, shapely.geometry.mapping(p)) for p in polygons]
    features = [{"type": "Feature", "properties": {"id": i}, "geometry": g} for i, g in enumerate(moved)]
    named = {} if own == "EPSG:4326" else {"crs": {"type": "name", "properties": {"name": own}}}
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features, **named, **more}))
    return path
