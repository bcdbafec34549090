"""What is measured of generated images: features, their moments, and distances between them."""
