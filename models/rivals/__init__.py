"""Other systems for cloud removal and detection, for comparison."""
