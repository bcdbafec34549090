"""Networks: plain modules, built on any device; sharding and averaging are applied to them from outside."""
