"""Every network and its configuration."""
