# Stands in for oe-core's class of this name.
