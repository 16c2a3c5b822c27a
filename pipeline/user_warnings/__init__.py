"""What a user must be told of a run: that a scene does not fit its model, that cloud is left."""
