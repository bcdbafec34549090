"""The one place where the parts of a run are chosen: the schema, the defaults and the named experiments."""
