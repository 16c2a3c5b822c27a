"""Everything that lies beside the output, and the checks of both."""
