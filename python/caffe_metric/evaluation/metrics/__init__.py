"""What is measured of embeddings: verification, retrieval, clustering. Arrays in, numbers out."""
