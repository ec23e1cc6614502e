"""What drawn scenes show: roads, water, plants, buildings, vehicles, vessels and aircraft."""
